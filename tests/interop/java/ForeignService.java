import com.fasterxml.jackson.core.JsonProcessingException;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A foreign program that takes part in the flow. It knows the topics, their keys (the account's
 * id) and the JSON bodies, but no headers. It reads strictly, writes JSON without headers, and
 * leaves the partition to the client's default partitioner.
 *
 * <p>Usage: java ForeignService BROKERS ROLE. The role selects what it reads:
 *
 * <ul>
 *   <li>{@code billing}: the topic billing; it replies on the topic payment from its own ledger
 *   <li>{@code original-billing}: the same, except that it charges for each ORDER_CREATED, even a
 *       repeated one, and ignores ORDER_CANCELED, like the services that Trifold replaced
 *   <li>{@code order}, {@code notification}: the topic payment
 *   <li>{@code observer}: the topics billing and payment
 *   <li>{@code balances}: the topic balance from its beginning to its end; then the program ends
 * </ul>
 *
 * <p>Each line of standard input, {@code {"topic","key","value"}}, is a message to send; the
 * program ends at the end of its input. Each line of standard output is an object with one field:
 * {@code sent} (topic, partition, offset), {@code read} (an accepted message), {@code refused} (a
 * rejected message with the reason), or {@code balances} (the last balance of each account, and
 * the topic's cleanup policy).
 */
public final class ForeignService {
    private static final Map<String, List<String>> TOPICS = Map.of(
        "billing", List.of("billing"),
        "original-billing", List.of("billing"),
        "order", List.of("payment"),
        "notification", List.of("payment"),
        "observer", List.of("billing", "payment"));
    private static final Duration POLL = Duration.ofMillis(200);
    private static final PrintStream OUT =
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    public static void main(String[] args) throws Exception {
        String brokers = args[0];
        String role = args[1];
        if (role.equals("balances")) {
            printBalances(brokers);
            return;
        }
        try (var producer = new KafkaProducer<String, String>(producerSettings(brokers));
                var consumer = new KafkaConsumer<String, byte[]>(consumerSettings(brokers, role))) {
            consumer.subscribe(TOPICS.get(role));
            Thread reading = new Thread(() -> {
                try {
                    read(consumer, reactionOf(role, producer));
                } catch (WakeupException ended) {
                    // Standard input has ended, so the program stops reading.
                } catch (Exception error) {
                    error.printStackTrace();
                    Runtime.getRuntime().halt(1);
                }
            });
            reading.start();
            sendLines(producer);
            consumer.wakeup();
            reading.join();
        }
    }

    private static Reaction reactionOf(String role, KafkaProducer<String, String> producer) {
        return switch (role) {
            case "billing" -> new Billing(producer);
            case "original-billing" -> new OriginalBilling(producer);
            default -> event -> {};
        };
    }

    /** Commits offsets only after all replies to the messages are in Kafka. */
    private static void read(KafkaConsumer<String, byte[]> consumer, Reaction reaction)
            throws Exception {
        while (true) {
            for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                try {
                    Object event = understand(record);
                    print("read", view(record));
                    reaction.take(event);
                } catch (IOException refusal) {
                    Map<String, Object> refused = view(record);
                    refused.put("why", refusal.getMessage());
                    print("refused", refused);
                }
            }
            consumer.commitSync();
        }
    }

    private interface Reaction {
        void take(Object event) throws Exception;
    }

    /** Returns the event if it matches the contract exactly; otherwise throws an IOException. */
    private static Object understand(ConsumerRecord<String, byte[]> record) throws IOException {
        if (record.value() == null) throw new IOException("no body");
        if (record.topic().equals("billing")) {
            var event = Messages.readBilling(record.value());
            checkKey(record, event.accountId());
            return event;
        }
        var event = Messages.readPayment(record.value());
        checkKey(record, event.accountId());
        return event;
    }

    private static void checkKey(ConsumerRecord<String, byte[]> record, String accountId)
            throws IOException {
        if (accountId.equals(record.key())) return;
        throw new IOException("the key " + record.key() + " is not the account " + accountId);
    }

    /**
     * The simplest possible billing service, to show which message answers which. Its ledger is in
     * memory and is lost when the program ends; a real ledger belongs in a database.
     */
    private static class Billing implements Reaction {
        private final KafkaProducer<String, String> producer;
        private final Map<String, BigDecimal> balances = new HashMap<>();
        private final Map<String, BigDecimal> paid = new HashMap<>();
        private final Set<String> settled = new HashSet<>();

        Billing(KafkaProducer<String, String> producer) {
            this.producer = producer;
        }

        @Override
        public void take(Object event) throws Exception {
            if (event instanceof Messages.DepositRequest deposit) deposit(deposit);
            if (event instanceof Messages.OrderCreated order) pay(order);
            if (event instanceof Messages.OrderCanceled order) refund(order);
        }

        void deposit(Messages.DepositRequest deposit) throws Exception {
            balances.merge(deposit.accountId(), deposit.value(), BigDecimal::add);
            publish(new Messages.DepositAccepted(deposit.accountId(), deposit.value()));
        }

        private void pay(Messages.OrderCreated order) throws Exception {
            // A repeated request got its reply before, and that reply is safe in Kafka.
            if (settled.add(order.orderId())) charge(order);
        }

        void charge(Messages.OrderCreated order) throws Exception {
            BigDecimal balance = balances.getOrDefault(order.accountId(), BigDecimal.ZERO);
            if (balance.compareTo(order.price()) < 0) {
                publish(new Messages.PaymentFail(order.orderId(), order.accountId()));
                return;
            }
            balances.put(order.accountId(), balance.subtract(order.price()));
            paid.put(order.orderId(), order.price());
            publish(new Messages.OrderPaid(order.orderId(), order.accountId()));
        }

        private void refund(Messages.OrderCanceled order) throws Exception {
            settled.add(order.orderId());
            BigDecimal price = paid.remove(order.orderId());
            if (price == null) return;
            balances.merge(order.accountId(), price, BigDecimal::add);
            publish(new Messages.PaymentRefunded(order.orderId(), order.accountId(), price));
        }

        private void publish(Messages.PaymentEvent event) throws Exception {
            // The annotations of the interface add the field `event`.
            var writer = Messages.JSON.writerFor(Messages.PaymentEvent.class);
            String body = writer.writeValueAsString(event);
            producer.send(new ProducerRecord<>("payment", event.accountId(), body)).get();
        }
    }

    private static final class OriginalBilling extends Billing {
        OriginalBilling(KafkaProducer<String, String> producer) {
            super(producer);
        }

        @Override
        public void take(Object event) throws Exception {
            if (event instanceof Messages.DepositRequest deposit) deposit(deposit);
            if (event instanceof Messages.OrderCreated order) charge(order);
        }
    }

    /** A line of standard input: a message to send. */
    private record Line(String topic, String key, String value) {}

    private static void sendLines(KafkaProducer<String, String> producer) throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String text = input.readLine(); text != null; text = input.readLine()) {
            Line line = Messages.JSON.readValue(text, Line.class);
            var record = new ProducerRecord<>(line.topic(), line.key(), line.value());
            RecordMetadata at = producer.send(record).get();
            print("sent", position(at.topic(), at.partition(), at.offset()));
        }
    }

    /** Reads a compacted topic as intended: only the last message of each key counts. */
    private static void printBalances(String brokers) throws Exception {
        Map<String, Messages.Balance> balances = new TreeMap<>();
        try (var consumer =
                new KafkaConsumer<String, byte[]>(consumerSettings(brokers, "balances"))) {
            List<TopicPartition> partitions = consumer.partitionsFor("balance").stream()
                .map(partition -> new TopicPartition(partition.topic(), partition.partition()))
                .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    Messages.Balance balance = Messages.readBalance(record.value());
                    checkKey(record, balance.accountId());
                    print("read", view(record));
                    Messages.Balance before = balances.put(record.key(), balance);
                    if (before != null && before.version() >= balance.version()) {
                        throw new IOException(balance + " comes after " + before);
                    }
                }
            }
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            var topic = new ConfigResource(ConfigResource.Type.TOPIC, "balance");
            var settings = admin.describeConfigs(List.of(topic)).all().get().get(topic);
            String policy = settings.get("cleanup.policy").value();
            print("balances", Map.of("cleanupPolicy", policy, "last", balances.values()));
        }
    }

    private static Map<String, Object> producerSettings(String brokers) {
        return Map.of(
            "bootstrap.servers", brokers,
            "acks", "all",
            "key.serializer", StringSerializer.class,
            "value.serializer", StringSerializer.class);
    }

    private static Map<String, Object> consumerSettings(String brokers, String role) {
        return Map.of(
            "bootstrap.servers", brokers,
            "group.id", "foreign-" + role,
            "enable.auto.commit", "false",
            "auto.offset.reset", "earliest",
            "key.deserializer", StringDeserializer.class,
            "value.deserializer", ByteArrayDeserializer.class);
    }

    private static Map<String, Object> position(String topic, int partition, long offset) {
        Map<String, Object> position = new LinkedHashMap<>();
        position.put("topic", topic);
        position.put("partition", partition);
        position.put("offset", offset);
        return position;
    }

    private static Map<String, Object> view(ConsumerRecord<String, byte[]> record) {
        List<List<String>> headers = new ArrayList<>();
        for (var header : record.headers()) {
            headers.add(List.of(header.key(), new String(header.value(), StandardCharsets.UTF_8)));
        }
        Map<String, Object> view = position(record.topic(), record.partition(), record.offset());
        byte[] value = record.value();
        view.put("key", record.key());
        view.put("value", value == null ? null : new String(value, StandardCharsets.UTF_8));
        view.put("headers", headers);
        return view;
    }

    private static synchronized void print(String name, Object value)
            throws JsonProcessingException {
        OUT.println(Messages.JSON.writeValueAsString(Map.of(name, value)));
    }
}

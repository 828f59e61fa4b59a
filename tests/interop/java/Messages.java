import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonSubTypes.Type;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.StreamWriteFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.cfg.CoercionAction;
import com.fasterxml.jackson.databind.cfg.CoercionInputShape;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.type.LogicalType;
import java.io.IOException;
import java.math.BigDecimal;
import java.util.regex.Pattern;

/**
 * The bodies of the flow's messages and a reader that accepts nothing else. It throws an
 * IOException for an unknown, missing or duplicate field, null, a number as text, text as a
 * number, an amount with more than two decimals, and an event on the wrong topic.
 */
final class Messages {
    private Messages() {}

    /** A message on the topic `billing`. */
    @JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "event")
    @JsonSubTypes({
        @Type(name = "ORDER_CREATED", value = OrderCreated.class),
        @Type(name = "ORDER_CANCELED", value = OrderCanceled.class),
        @Type(name = "DEPOSIT_REQUEST", value = DepositRequest.class),
    })
    sealed interface BillingEvent {
        String accountId();
    }

    record OrderCreated(String orderId, String accountId, BigDecimal price)
            implements BillingEvent {
        OrderCreated {
            checkIds(orderId, accountId);
            checkAmount(price);
        }
    }

    record OrderCanceled(String orderId, String accountId) implements BillingEvent {
        OrderCanceled {
            checkIds(orderId, accountId);
        }
    }

    record DepositRequest(String accountId, BigDecimal value) implements BillingEvent {
        DepositRequest {
            checkIds(accountId);
            checkAmount(value);
        }
    }

    /** A message on the topic `payment`. */
    @JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "event")
    @JsonSubTypes({
        @Type(name = "ORDER_PAID", value = OrderPaid.class),
        @Type(name = "PAYMENT_FAIL", value = PaymentFail.class),
        @Type(name = "DEPOSIT_ACCEPTED", value = DepositAccepted.class),
        @Type(name = "PAYMENT_REFUNDED", value = PaymentRefunded.class),
    })
    sealed interface PaymentEvent {
        String accountId();
    }

    record OrderPaid(String orderId, String accountId) implements PaymentEvent {
        OrderPaid {
            checkIds(orderId, accountId);
        }
    }

    record PaymentFail(String orderId, String accountId) implements PaymentEvent {
        PaymentFail {
            checkIds(orderId, accountId);
        }
    }

    record DepositAccepted(String accountId, BigDecimal value) implements PaymentEvent {
        DepositAccepted {
            checkIds(accountId);
            checkAmount(value);
        }
    }

    record PaymentRefunded(String orderId, String accountId, BigDecimal value)
            implements PaymentEvent {
        PaymentRefunded {
            checkIds(orderId, accountId);
            checkAmount(value);
        }
    }

    /** A message on the compacted topic `balance`. */
    record Balance(String accountId, BigDecimal balance, long version, String updated) {
        Balance {
            checkIds(accountId);
            checkDecimals(balance);
            check(balance.signum() >= 0, "a balance below zero: " + balance);
            check(version >= 0, "a version below zero: " + version);
            check(TIME.matcher(updated).matches(), "no time in UTC with milliseconds: " + updated);
        }
    }

    static final ObjectMapper JSON = strictMapper();

    static BillingEvent readBilling(byte[] value) throws IOException {
        return present(JSON.readValue(value, BillingEvent.class));
    }

    static PaymentEvent readPayment(byte[] value) throws IOException {
        return present(JSON.readValue(value, PaymentEvent.class));
    }

    static Balance readBalance(byte[] value) throws IOException {
        return present(JSON.readValue(value, Balance.class));
    }

    /** Jackson accepts `null` for an object of any class. */
    private static <Body> Body present(Body body) throws IOException {
        if (body == null) throw new IOException("null is no body");
        return body;
    }

    private static ObjectMapper strictMapper() {
        return JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .enable(
                DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES,
                DeserializationFeature.FAIL_ON_MISSING_CREATOR_PROPERTIES,
                DeserializationFeature.FAIL_ON_NULL_CREATOR_PROPERTIES,
                DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .disable(DeserializationFeature.ACCEPT_FLOAT_AS_INT)
            .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
            .withCoercionConfig(LogicalType.Textual, texts -> texts
                .setCoercion(CoercionInputShape.Integer, CoercionAction.Fail)
                .setCoercion(CoercionInputShape.Float, CoercionAction.Fail)
                .setCoercion(CoercionInputShape.Boolean, CoercionAction.Fail))
            .enable(StreamWriteFeature.WRITE_BIGDECIMAL_AS_PLAIN)
            .build();
    }

    private static final Pattern UUID =
        Pattern.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");
    private static final Pattern TIME =
        Pattern.compile("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z");

    private static void checkIds(String... ids) {
        for (String id : ids) check(UUID.matcher(id).matches(), "no UUID: " + id);
    }

    private static void checkAmount(BigDecimal amount) {
        checkDecimals(amount);
        check(amount.signum() > 0, "an amount of nothing or less: " + amount);
    }

    /** A number that was written with an exponent, such as 1E+3, has a negative scale. */
    private static void checkDecimals(BigDecimal number) {
        boolean fits = number.scale() >= 0 && number.scale() <= 2;
        check(fits, "not a plain number with at most two decimals: " + number);
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) throw new IllegalArgumentException(otherwise);
    }
}

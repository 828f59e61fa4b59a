/**
 * The text of the generated tables in Russian. Text without a translation stays in English, so that a new
 * variable can be translated later. A test fails on a translation that no table uses anymore.
 */
export const RUSSIAN: Readonly<Record<string, string>> = {
  topic: 'топик',
  events: 'события',
  event: 'событие',
  'sent by': 'отправляет',
  'read by': 'читает',
  body: 'тело',
  meaning: 'что означает',
  'no service here': 'здесь никто',
  'An order is awaiting payment.': 'Заказ ждёт оплаты.',
  'A deposit to an account was requested.': 'Запрошено пополнение счёта.',
  'An order was canceled: its payment has to be voided or refunded.':
    'Заказ отменён: его платёж надо аннулировать или вернуть.',
  'An order was paid.': 'Заказ оплачен.',
  'An order was not paid; the header x-reason says why. The order service sends this event for orders that it cancels itself.':
    'Заказ не оплачен; почему — в заголовке x-reason. Для заказа, который отменил order, его отправляет order.',
  'A deposit was added to the account.': 'Деньги на счёте.',
  'The payment of an order was refunded to the account.':
    'Деньги за оплаченный заказ снова на счёте.',
  'The newest balance of an account. Compacted.':
    'Последний баланс счёта. Топик сжимается по ключу.',

  'enough money': 'денег хватает',
  'not enough money': 'денег не хватает',
  'the notification service is down': 'недоступен notification',
  'the billing service is down': 'недоступен billing',
  'the broker is down': 'недоступен брокер',
  deposit: 'пополнение',
  '201 after the payment': '201 после оплаты',
  '201 PENDING at once': 'сразу 201 PENDING',
  '201 PENDING at once, then APPROVED': 'сразу 201 PENDING, затем APPROVED',
  '201 PENDING at once, then CANCELED': 'сразу 201 PENDING, затем CANCELED',
  '402, order CANCELED': '402, заказ CANCELED',
  '503, order CANCELED': '503, заказ CANCELED',
  'the notice exists before the response': 'уведомление готово до ответа',
  'the notice follows': 'уведомление приходит следом',
  'the notice comes later, once': 'уведомление приходит позже, один раз',
  'the payment is voided once the billing service is back':
    'платёж аннулируется, когда billing вернётся',
  'the order service notifies the customer at once': 'order сразу уведомляет покупателя',
  'paid if the billing service is back within 15 minutes, otherwise CANCELED, and the order service notifies the customer':
    'заказ будет оплачен, если billing вернётся за 15 минут, иначе CANCELED, и order уведомит покупателя',
  'settles when the broker is back, or is CANCELED after 15 minutes':
    'завершится, когда брокер вернётся, или станет CANCELED через 15 минут',
  'not affected': 'не влияет',
  'the response comes once the ledger has the deposit': 'ответ после записи в книгу',
  'the response has the resulting balance at once': 'сразу ответ с будущим балансом',
  'ledger and notice follow': 'запись в книгу и уведомление следом',

  'orders per second': 'заказов в секунду',
  'CPU per order, Kafka and PostgreSQL included':
    'процессорное время на заказ, вместе с Kafka и PostgreSQL',
  ms: 'мс',

  folder: 'папка',
  requests: 'запросы',
  assertions: 'проверки',
  failed: 'не прошли',
  Health: 'Состояние',
  'Clear messages': 'Удаление уведомлений',
  'Bad input': 'Плохой ввод',
  'After the bad input': 'После плохого ввода',

  call: 'вызов',
  'what it does': 'что делает',
  'with AUTH=jwt': 'при AUTH=jwt',
  everyone: 'все',
  services: 'сервисы',
  customer: 'клиент',
  operator: 'оператор',
  'Whether the service is running': 'Работает ли сервис',
  'Dead letters, oldest first': 'Dead letters, от старых к новым',
  'One dead letter': 'Одна запись из dead letters',
  'Remove it permanently': 'Удалить её насовсем',
  'Handle it again in this service only, as it is or with another body':
    'Обработать её снова, только здесь, как есть или с другим телом',
  'Calls, letters and messages that wait for delivery, oldest first':
    'Вызовы, письма и события, которые ждут отправки, от старых к новым',
  'Place an order': 'Сделать заказ',
  "A profile's orders, newest first": 'Заказы профиля, от новых к старым',
  'One order; with Prefer: wait=N, the response waits up to N seconds for its outcome':
    'Один заказ; с Prefer: wait=N ответ ждёт исхода до N секунд',
  'Cancel an order; if it was paid, the payment is refunded':
    'Отменить заказ; если он оплачен, деньги возвращаются',
  'Orders whose payment request or void the billing service has not answered, oldest first':
    'Заказы, которые ждут billing — оплаты или аннулирования, — от старых к новым',
  'Open an account': 'Открыть счёт',
  'Deposit money; the response is the resulting balance': 'Пополнить; ответ — новый баланс',
  'An account': 'Счёт',
  "Pay for an order; without an order id, the payment's own id is used as the order id":
    'Заплатить; без номера заказа им становится идентификатор платежа',
  'Cancel or refund a payment; a void that arrives before the payment prevents it':
    'Аннулировать платёж или вернуть деньги; пришедшее раньше платежа аннулирование отменяет его',
  'The ledger entries of an account, oldest first': 'Проводки счёта, от старых к новым',
  'The payment of an order': 'Платёж за заказ',
  'Notify a customer; the Idempotency-Key is the id of the event':
    'Уведомить покупателя; Idempotency-Key — идентификатор события',
  'All messages, oldest first': 'Все уведомления, от старых к новым',
  'Remove all messages': 'Удалить все уведомления',
  "An account's messages, oldest first": 'Уведомления счёта, от старых к новым',
  "Remove an account's contact, the texts of its messages and its unsent letters":
    'Удалить контакт счёта, тексты его уведомлений и неотправленные письма',
  'One message': 'Одно уведомление',
  "Set the address for an account's letters": 'Указать адрес для писем счёта',
  "The address for an account's letters": 'Адрес для писем счёта',
  'Stop sending letters for an account': 'Больше не отправлять писем счёта',

  variable: 'переменная',
  default: 'по умолчанию',
  values: 'значения',
  description: 'что это',
  empty: 'пусто',
  text: 'текст',
  'text that matches': 'текст вида',
  'text of at most 200 characters': 'текст, не длиннее 200 знаков',
  '/ or a path such as /shop, not below a path of the program itself (orders, billing, notification, lab, asyncapi, asyncapi.json)':
    '/ или путь вроде /shop, не под путём самой программы (orders, billing, notification, lab, asyncapi, asyncapi.json)',
  '* or host names without ports, separated by commas':
    '* или имена хостов без портов, через запятую',
  'addresses or CIDR ranges, separated by commas': 'адреса или диапазоны CIDR, через запятую',
  'a URL such as smtp://user:password@host:587 or smtps://host, with / # ? @ percent-encoded in user and password':
    'URL вроде smtp://user:password@host:587 или smtps://, где / # ? @ в имени и пароле закодированы процентами',
  'an http:// or https:// URL without credentials': 'URL http:// или https:// без имени и пароля',
  'one of': 'одно из',
  'an integer': 'целое число',
  'true or false': 'true или false',
  'The address to listen on.': 'Адрес, на котором слушать.',
  'The port to listen on; 0 means any free port.': 'Порт, на котором слушать; 0 — любой свободный.',
  'Every path is served with and without this prefix; / means no prefix.':
    'Каждый путь работает и с этим префиксом, и без него; / — без префикса.',
  'Host names that are accepted in requests, separated by commas; * accepts any. Empty: localhost, 127.0.0.1 and [::1] if HOST is loopback, otherwise any.':
    'Какие имена хоста допустимы в запросах, через запятую; * — любые. Пусто — на loopback localhost, 127.0.0.1 и [::1], иначе любые.',
  'Networks of the proxies and services whose X-Forwarded-For is trusted, such as 10.0.0.0/8, separated by commas. Their own requests have no rate limit.':
    'Сети прокси и сервисов, чьему X-Forwarded-For можно верить, например 10.0.0.0/8, через запятую. Для них самих предела запросов нет.',
  'How many client connections may be open; further ones get 429.':
    'Сколько соединений клиентов может быть открыто; остальным отвечают 429.',
  'The size limit of a request body.': 'Наибольшее тело запроса.',
  'How long a request may take to arrive, and how long its response may take after that.':
    'Сколько запрос может приходить и сколько потом ждать ответа.',
  'Requests per minute and client address; 0 means no limit. Behind a proxy, TRUSTED_PROXIES must list it, or all of its clients share one limit.':
    'Запросов в минуту с одного адреса; 0 — без ограничения. За прокси его сеть должна стоять в TRUSTED_PROXIES, иначе у всех его клиентов один предел на всех.',
  'Log lines of this level and above are written.':
    'Наименее важные записи, которые попадают в журнал.',
  'The folder with all state: the database, the event log and the letters.':
    'Папка со всем состоянием: база, журнал событий и письма.',
  'Whether each commit waits until it is on disk. If true, commits survive a power cut; if false, they survive kill -9, but not a power cut.':
    'Ждёт ли коммит записи на диск, чтобы пережить отключение питания; без этого он переживает kill -9.',
  'Whether the services and the broker can be switched off and on over HTTP, from a loopback address and while AUTH is off.':
    'Можно ли выключать и включать сервисы и брокера по HTTP, с loopback и пока AUTH выключен.',
  'the name of an HTTP header': 'имя заголовка HTTP',
  'algorithms separated by commas: ES256, ES384, ES512, EdDSA, RS256, RS384, RS512, PS256, PS384, PS512':
    'алгоритмы через запятую: ES256, ES384, ES512, EdDSA, RS256, RS384, RS512, PS256, PS384, PS512',
  'Whether callers need a signed token (jwt), or may do everything without one (off).':
    'Нужен ли вызывающему подписанный токен (jwt), или каждому можно всё и без него (off).',
  'Whether AUTH may be off while HOST is not loopback, for example because a gateway authenticates callers.':
    'Можно ли выключить AUTH, когда HOST — не loopback, например потому, что вызывающих проверяет шлюз.',
  'The issuer of tokens, their claim iss. The default is that of npm run token.':
    'Издатель токенов, их поле iss. По умолчанию — издатель npm run token.',
  'The audience that the claim aud of a token must contain.':
    'Получатель, который должен быть в поле aud токена.',
  'The https:// URL of the public keys of the issuer (JWKS); http:// on loopback.':
    'URL https:// открытых ключей издателя (JWKS); на loopback можно http://.',
  'A file with the public keys of the issuer (JWKS), instead of AUTH_JWKS_URL.':
    'Файл с открытыми ключами издателя (JWKS) вместо AUTH_JWKS_URL.',
  'A file with a secret of at least 32 bytes, instead of public keys. Only HS256 is accepted then.':
    'Файл с секретом не короче 32 байт вместо открытых ключей. Тогда принимается только HS256.',
  'The accepted signatures of tokens.': 'Какие подписи токенов принимаются.',
  "The claim with the id of the customer's profile. If it is not a UUID, the id is derived from iss and sub.":
    'Поле с id профиля клиента. Если это не UUID, id получают из iss и sub.',
  'The claim with the scopes: a list, or text separated by spaces.':
    'Поле с правами: список или текст через пробел.',
  "How many seconds the issuer's clock may differ.":
    'На сколько секунд могут расходиться часы издателя.',
  'Another header that may contain the token, without "Bearer", such as x-jwt-token. Empty: none.':
    'Ещё один заголовок, в котором может быть токен без «Bearer», например x-jwt-token. Пусто — никакой.',
  'With AUTH=jwt: whether customers may deposit to their own accounts; otherwise only tokens with the scope deposits:write may.':
    'При AUTH=jwt: могут ли клиенты пополнять свои счета; иначе — только токены с правом deposits:write.',
  'The style of requests that do not name one.': 'Стиль запросов, которые его не называют.',
  'Whether a request may name another style with x-interaction-style.':
    'Может ли запрос назвать другой стиль через x-interaction-style.',
  'How long a call to another service may take.': 'Сколько может длиться вызов другого сервиса.',
  'How long an Idempotency-Key and its response are kept.':
    'Сколько хранятся Idempotency-Key и его ответ.',
  'The price of one unit of the product, such as 65 or 65.50.':
    'Цена единицы товара, например 65 или 65.50.',
  'How long an order waits for an outcome before its request to the billing service is resent; the wait doubles each time.':
    'Через сколько запрос к billing отправляется повторно, если исхода нет; каждый раз удваивается.',
  'Whether requests to the billing service that have no outcome are resent; false for a billing service that does not deduplicate by order.':
    'Отправлять ли повторно запросы к billing, у которых нет исхода; false — для billing, который не распознаёт повторы по заказу.',
  'How many times the void of a canceled order is resent before the order counts as stuck; after that, the void is resent once an hour.':
    'Сколько раз повторять аннулирование, прежде чем заказ считается застрявшим; потом оно повторяется раз в час.',
  'How long an order may be PENDING before it is canceled and its payment voided.':
    'Сколько заказ может оставаться в PENDING, прежде чем его отменят, а платёж аннулируют.',
  'How long a promised deposit may stay unbooked before its DEPOSIT_REQUEST is resent; the wait doubles each time.':
    'Через сколько DEPOSIT_REQUEST отправляется повторно, если пополнение не проведено; каждый раз удваивается.',
  'The sender address of letters.': 'Отправитель писем.',
  'How many letters an address gets in an hour at most; further notices can only be read over HTTP. 0 sets no limit.':
    'Сколько писем в час получает один адрес; остальное можно прочесть только по HTTP. 0 — без ограничения.',
  'The folder that letters are written to; if empty, `mail` in the data folder.':
    'Папка, в которую складываются письма; пусто — `mail` в папке данных.',
  'The mail server, such as smtp://user:password@host:587 or smtps://host; percent-encode special characters in the password. If empty, letters are written to MAILDIR.':
    'Почтовый сервер, например smtp://user:password@host:587 или smtps://host; особые знаки пароля кодируются процентами. Пусто — письма идут в MAILDIR.',
  'The OTLP endpoint for traces, such as http://127.0.0.1:4318. Tracing is off if this and the next two variables are empty.':
    'Куда уходят трассировки по OTLP, например http://127.0.0.1:4318. Пусто — никуда, если не велит одна из двух следующих.',
  'The full OTLP URL for traces only, such as http://127.0.0.1:4318/v1/traces.':
    'То же вместе с путём, только для трассировок, например http://127.0.0.1:4318/v1/traces.',
  'The exporter of traces: otlp, zipkin or console; none switches tracing off.':
    'Как уходят трассировки: otlp, zipkin, console; none выключает их.',
  'The PostgreSQL database of this service, such as postgres://user:password@host/name.':
    'База PostgreSQL этого сервиса, например postgres://user:password@host/name.',
  'a URL such as postgres://user:password@host/name, with / # ? @ percent-encoded in user and password':
    'URL вроде postgres://user:password@host/name, где / # ? @ в имени и пароле закодированы процентами',
  'host:port, or several of them separated by commas': 'host:port или несколько через запятую',
  'The maximum number of connections to the database.': 'Наибольшее число соединений с базой.',
  'One or more Kafka brokers as host:port, separated by commas; the other brokers are found through them.':
    'Один или несколько брокеров Kafka, host:port через запятую; остальные найдутся через них.',
  'Whether connections to Kafka use TLS.': 'Соединяться ли с Kafka по TLS.',
  "A PEM file with the certificates that may sign the brokers' certificates. Empty: those that Node.js trusts.":
    'PEM-файл с сертификатами, которыми могут быть подписаны сертификаты брокеров. Пусто — те, которым доверяет Node.js.',
  'A PEM file with the certificate of this program, for brokers that require one.':
    'PEM-файл с сертификатом этой программы — для брокеров, которые его требуют.',
  'A PEM file with the private key that belongs to KAFKA_TLS_CERT_FILE.':
    'PEM-файл с закрытым ключом к KAFKA_TLS_CERT_FILE.',
  "The host name in the brokers' certificates. Empty: the name in the address.":
    'Имя хоста в сертификатах брокеров. Пусто — имя из адреса.',
  'How this program logs in to Kafka.': 'Как программа входит в Kafka.',
  'The user name for PLAIN and SCRAM.': 'Имя пользователя для PLAIN и SCRAM.',
  'A file with the password for PLAIN and SCRAM; read at every login.':
    'Файл с паролем для PLAIN и SCRAM; читается при каждом входе.',
  'A file with the token for OAUTHBEARER; read at every login.':
    'Файл с токеном для OAUTHBEARER; читается при каждом входе.',
  'Whether tracing is off regardless of the other variables.':
    'Выключены ли трассировки, что бы ни велели остальные переменные.',

  instrument: 'чем',
  'what it tries': 'что пробуется',
  'last recorded run': 'последний записанный прогон',
  'events in any order; calls and records lost, delayed or duplicated; crashes, frozen processes, outages, a lost log':
    'любой порядок событий; вызовы и сообщения теряются, запаздывают и дублируются; падения и зависания процессов, отказы серверов, потерянный журнал',
  '{date}: {seeds} seeds in each of {styles} styles, {violations} violations; the same seed repeats the same run, byte for byte':
    '{date}: по {seeds} прогонов в каждом из {styles} стилей, нарушений: {violations}; один и тот же seed даёт тот же прогон, байт в байт',
  'a crash before, during and after each call to a database, broker, service or mailbox; the calls are read from the code, and a call without a crash fails the run':
    'падение до, во время и после каждого обращения к базе, брокеру, сервису и почте; обращения берутся из самого кода, и пропустить хотя бы одно — значит провалить прогон',
  '{date}: {crashes} crashes, one each time a scenario makes such a call, with one and with two processes of each service, {violations} violations':
    '{date}: {crashes} падений, по одному на каждое такое обращение в сценарии, с одним и с двумя процессами каждого сервиса; нарушений: {violations}',
  'whether the simulator notices planted bugs': 'заметит ли симулятор намеренно внесённые ошибки',
  '{date}: {found} of {planted} planted bugs found, most of them with the first seeds; [mutants.md](mutants.md) lists them':
    '{date}: найдено {found} из {planted} внесённых ошибок, большинство — в первых же прогонах; список — в [mutants.md](mutants.md)',
  'two replicas of each service on Kafka and PostgreSQL, behind proxies that delay, cut and reset connections; killed and frozen processes and servers, processes frozen inside transactions, wrong clocks, a full disk':
    'по два экземпляра каждого сервиса на Kafka и PostgreSQL, за прокси, которые задерживают, рвут и сбрасывают соединения; убитые и зависшие процессы и серверы, зависания посреди транзакции, неверные часы, полный диск',
  '{date}: {minutes} minutes in style {style}, {violations} violations':
    '{date}: {minutes} мин в стиле {style}, нарушений: {violations}',
  "servers killed and frozen for minutes, replicas killed under load, all of Kafka's data deleted, all groups reset to the start, the same work in each style":
    'серверы останавливаются и зависают на минуты, экземпляры гибнут под нагрузкой, все данные Kafka удаляются, все группы возвращаются к началу, одна и та же работа в каждом стиле',
  'on each change, with servers down for 20 seconds; with `OUTAGE_SECONDS=full`, for minutes':
    'при каждом изменении, серверы недоступны по 20 секунд; с `OUTAGE_SECONDS=full` — минутами',
}

// salesforce-pubsub-api-client against the stand-in org: it was written elsewhere, and has Salesforce's own .proto.
//
// Usage: pubsub.cjs URL, with NODE_EXTRA_CA_CERTS for the client's login. The org is the seed of
// tests/it/salesforce/simulator/clients.rs, over https.

const assert = require("node:assert/strict");
const PubSubApiClient = require("salesforce-pubsub-api-client").default ?? require("salesforce-pubsub-api-client");

const [url] = process.argv.slice(2);
const topic = "/event/CTI_Notice__e";
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

async function client() {
  const config = {
    authType: "oauth-client-credentials",
    loginUrl: url,
    clientId: "secret-client",
    clientSecret: "a secret",
    pubSubEndpoint: url.replace("https://", ""),
    // Its gRPC trusts the certificates that it brings, and no others.
    rejectUnauthorizedSsl: false,
  };
  const client = new PubSubApiClient(config, quiet);
  await client.connect();
  return client;
}

async function control(method, path, body) {
  const reply = await fetch(`${url}/simulator/${path}`, { method, body: body && JSON.stringify(body) });
  const text = await reply.text();
  assert.ok(reply.ok, text);
  return text && JSON.parse(text);
}

const publish = (record) => control("POST", "events", { topic, record });

// What a subscription calls back with, one after the other.
function heard(subscribe) {
  const came = [];
  const waiting = [];
  subscribe((info, type, data) => {
    const next = { info, type, data };
    const waiter = waiting.shift();
    if (waiter) waiter(next);
    else came.push(next);
  });
  const next = () => (came.length ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)));
  return {
    async event() {
      for (;;) {
        const { type, data } = await next();
        assert.notEqual(type, "error", data);
        if (type === "event") return data;
      }
    },
    // So many events and the end of what was asked for. The client decodes each by itself, so one may overtake another:
    // they are put into the order of their replay ids.
    async batch(count) {
      const events = [];
      let isLast = false;
      while (events.length < count || !isLast) {
        const { type, data } = await next();
        assert.notEqual(type, "error", data);
        if (type === "event") events.push(data);
        isLast ||= type === "lastEvent";
      }
      return events.sort((one, other) => one.replayId - other.replayId);
    },
    async until(wanted) {
      for (;;) {
        const { info, type, data } = await next();
        if (type === wanted) return data ?? info;
      }
    },
  };
}

async function streams(name) {
  return (await control("GET", `events?topic=${encodeURIComponent(name)}`)).streams;
}

// Subscribes, and waits until the org knows: an earlier client that was closed may still be counted.
async function listening(subscribe, name = topic) {
  const before = await streams(name);
  const events = heard(subscribe);
  while ((await streams(name)) <= before) await new Promise((resolve) => setTimeout(resolve, 5));
  return events;
}

const scenes = {
  async "an event is published, and heard with its fields"() {
    const own = await client();
    const events = await listening((callback) => own.subscribe(topic, callback));
    const { replayId } = await own.publish(topic, {
      CreatedDate: 1780000000000,
      CreatedById: "005000000000004AAA",
      User_Id__c: { string: "005000000000002AAA" },
      Message__c: { string: "Grüße" },
      Priority__c: { double: 1.5 },
      At__c: null,
    });
    const event = await events.event();
    assert.equal(event.replayId, replayId);
    assert.equal(event.payload.Message__c, "Grüße");
    assert.equal(event.payload.Priority__c, 1.5);
    await publish({ Message__c: "by the control API", At__c: "2026-11-24T09:20:00.000+0000" });
    const second = await events.event();
    assert.equal(second.payload.Message__c, "by the control API");
    assert.equal(second.payload.At__c, Date.parse("2026-11-24T09:20:00Z"));
    own.close();
  },

  async "past events come from the earliest, or after a replay id"() {
    const own = await client();
    const early = heard((callback) => own.subscribeFromEarliestEvent(topic, callback, 2));
    const [first, second] = await early.batch(2);
    assert.equal(second.replayId, first.replayId + 1);
    own.close();
    const other = await client();
    const late = heard((callback) => other.subscribeFromReplayId(topic, callback, 1, first.replayId));
    assert.equal((await late.event()).id, second.id);
    other.close();
  },

  async "a hundred and fifty events come in batches that are asked for"() {
    const own = await client();
    const events = await listening((callback) => own.subscribe(topic, callback, 100));
    for (let at = 0; at < 150; at++) await publish({ Message__c: String(at) });
    const numbers = (from, to) => Array.from({ length: to - from }, (_, at) => String(from + at));
    const texts = async (count) => (await events.batch(count)).map((event) => event.payload.Message__c);
    assert.deepEqual(await texts(100), numbers(0, 100));
    own.requestAdditionalEvents(topic, 50);
    assert.deepEqual(await texts(50), numbers(100, 150));
    own.close();
  },

  async "a change names its fields, also within a compound one"() {
    const own = await client();
    const changes = "/data/ContactChangeEvent";
    const events = await listening((callback) => own.subscribe(changes, callback), changes);
    const jsforce = require("jsforce");
    const connection = new jsforce.Connection({ oauth2: { loginUrl: url, clientId: "secret-client", clientSecret: "a secret" }, version: "67.0" });
    await connection.authorize({ grant_type: "client_credentials" });
    const { id } = await connection.sobject("Contact").create({ FirstName: "Ann", LastName: "Lee", Phone: "1" });
    const created = (await events.event()).payload;
    assert.equal(created.ChangeEventHeader.changeType, "CREATE");
    assert.deepEqual(created.ChangeEventHeader.recordIds, [id]);
    await connection.sobject("Contact").update({ Id: id, LastName: "Low", Phone: null });
    const { ChangeEventHeader: header, Phone } = (await events.event()).payload;
    assert.deepEqual([...header.changedFields].sort(), ["LastModifiedDate", "Name.LastName", "Phone"]);
    assert.deepEqual(header.nulledFields, ["Phone"]);
    assert.equal(Phone, null);
    own.close();
  },

  async "keep-alives and errors have the form that it knows"() {
    const own = await client();
    const events = await listening((callback) => own.subscribe(topic, callback));
    await control("POST", "keep-alive");
    assert.ok((await events.until("grpcKeepAlive")).lastReplayId > 1000);
    own.close();
    const other = await client();
    await control("POST", "faults", { fault: "events", error: "auth", times: 1 });
    const refused = heard((callback) => other.subscribe(topic, callback));
    const error = await refused.until("error");
    assert.equal(error.code, 16);
    assert.equal(error.metadata.get("error-code")[0], "sfdc.platform.eventbus.grpc.service.auth.error");
    const missing = heard((callback) => other.subscribe("/event/Missing__e", callback));
    assert.equal((await missing.until("error")).code, 5);
    const corrupted = heard((callback) => other.subscribeFromReplayId(topic, callback, 1, 5));
    assert.match((await corrupted.until("error")).metadata.get("error-code")[0], /\.replayid\./);
    other.close();
  },
};

(async () => {
  for (const [scene, play] of Object.entries(scenes)) {
    await play();
    console.log(scene);
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

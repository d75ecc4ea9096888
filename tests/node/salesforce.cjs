// jsforce against the stand-in org: it was written elsewhere, and knows an org's ways.
//
// Usage: salesforce.cjs URL KEY_FILE. The org is the seed of tests/it/salesforce/simulator/clients.rs. CommonJS, so that NODE_PATH
// finds jsforce beside the build.

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const fs = require("node:fs");
const jsforce = require("jsforce");

const [url, keyFile] = process.argv.slice(2);
const key = fs.readFileSync(keyFile);
const alice = "005000000000002AAA";
const version = "67.0";

// jsforce leaves signing to others.
function assertion(claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 120;
  const all = { iss: "jwt-client", sub: "reader@example.com", aud: "https://login.salesforce.com", exp, ...claims };
  const signed = `${part({ alg: "RS256" })}.${part(all)}`;
  return `${signed}.${crypto.sign("RSA-SHA256", signed, key).toString("base64url")}`;
}

async function byAssertion(claims) {
  const connection = new jsforce.Connection({ loginUrl: url, version });
  const grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
  await connection.authorize({ grant_type, assertion: assertion(claims) });
  return connection;
}

async function bySecret(clientSecret = "a secret") {
  const oauth2 = { loginUrl: url, clientId: "secret-client", clientSecret };
  const connection = new jsforce.Connection({ oauth2, version });
  await connection.authorize({ grant_type: "client_credentials" });
  return connection;
}

async function control(method, path, body) {
  const reply = await fetch(`${url}/simulator/${path}`, { method, body: body && JSON.stringify(body) });
  assert(reply.ok, `${path}: ${reply.status}`);
  return reply.status === 204 ? undefined : reply.json();
}

const fault = (name, keys) => control("POST", "faults", { fault: name, ...keys });
const code = (errorCode) => (error) => (assert.equal(error.errorCode ?? error.name, errorCode), true);

const scenes = {
  async logsInByAssertion() {
    const connection = await byAssertion();
    assert.equal(connection.instanceUrl, url);
    assert.equal(connection.userInfo.organizationId, "00D000000000001EAA");
    const identity = await connection.identity();
    assert.equal(identity.username, "reader@example.com");
  },

  async logsInBySecret() {
    const identity = await (await bySecret()).identity();
    assert.equal(identity.username, "writer@example.com");
  },

  async isRefusedALogin() {
    await assert.rejects(byAssertion({ aud: "https://elsewhere.example" }), {
      name: "invalid_grant",
      message: "audience is invalid",
    });
    await assert.rejects(byAssertion({ exp: 1 }), { message: "expired authorization code" });
    await assert.rejects(bySecret("another secret"), { name: "invalid_client" });
  },

  async queries() {
    const connection = await bySecret();
    const fields = ["Id", "CTI_Username__c", "User__r.Username"];
    const found = await connection.sobject("CTI_Login__c").find({ User_Id__c: alice, Active__c: true }, fields).limit(2);
    assert.equal(found.length, 1);
    assert.equal(found[0].CTI_Username__c, "1245456");
    assert.equal(found[0].User__r.Username, "alice@example.com");
    const one = await connection.sobject("CTI_Login__c").findOne({ User_Id__c: alice });
    assert.equal(one.CTI_Extension__c, "5051");
    const count = await connection.query("SELECT COUNT() FROM Account");
    assert.equal(count.totalSize, 5);
  },

  async pages() {
    const connection = await bySecret();
    const first = await connection.query("SELECT Name FROM Account ORDER BY Name");
    assert.deepEqual([first.totalSize, first.records.length, first.done], [5, 2, false]);
    const second = await connection.queryMore(first.nextRecordsUrl);
    assert.equal(second.records[0].Name, "C");
    const all = await connection.query("SELECT Name FROM Account", { autoFetch: true, maxFetch: 100 });
    assert.equal(all.totalSize, 5);
  },

  async writes() {
    const connection = await bySecret();
    const contacts = connection.sobject("Contact");
    const made = await contacts.create({ LastName: "Müller", Phone: "+4930123" });
    assert.equal(made.success, true);
    await contacts.update({ Id: made.id, Phone: "+4930124" });
    assert.equal((await contacts.retrieve(made.id)).Phone, "+4930124");
    const several = await contacts.create([{ LastName: "One" }, { Phone: "2" }]);
    assert.deepEqual(several.map((it) => it.success), [true, false]);
    assert.equal(several[1].errors[0].statusCode, "REQUIRED_FIELD_MISSING");
    await contacts.destroy([made.id, several[0].id]);
    await assert.rejects(contacts.retrieve(made.id), code("NOT_FOUND"));

    const logins = connection.sobject("CTI_Login__c");
    const login = { User__c: alice, User_Id__c: "005000000000008AAA", CTI_Extension__c: "0088" };
    const [first, again] = [await logins.upsert(login, "User_Id__c"), await logins.upsert(login, "User_Id__c")];
    assert.deepEqual([first.success, again.success, first.id], [true, true, again.id]);
  },

  async describes() {
    const names = async (connection) => (await connection.describe("CTI_Login__c")).fields.map((it) => it.name);
    assert((await names(await bySecret())).includes("ADFS_Username__c"));
    assert(!(await names(await byAssertion())).includes("ADFS_Username__c"));
    const global = await (await bySecret()).describeGlobal();
    assert(global.sobjects.some((it) => it.name === "CTI_Login__c"));
  },

  async meetsItsMistakes() {
    const connection = await bySecret();
    await assert.rejects(connection.query("SELECT Id FRM Account"), code("MALFORMED_QUERY"));
    await assert.rejects(connection.query("SELECT Id FROM Nothing__c"), code("INVALID_TYPE"));
    // jsforce escapes the quote and not the backslash: what it sends is no longer one string.
    const vector = { CTI_Username__c: "a\\' OR User_Id__c != '" };
    await assert.rejects(connection.sobject("CTI_Login__c").find(vector, ["Id"]), code("MALFORMED_QUERY"));
  },

  async meetsAnOrgInTrouble() {
    const connection = await bySecret();
    const ask = () => connection.query("SELECT Id FROM Account LIMIT 1");
    await fault("daily_limit", { times: 1 });
    await assert.rejects(ask(), code("REQUEST_LIMIT_EXCEEDED"));
    assert.deepEqual(connection.limitInfo.apiUsage, { used: 15000, limit: 15000 });
    // It repeats a GET after 503 by itself.
    await fault("unavailable", { times: 1 });
    assert.equal((await ask()).totalSize, 1);
    await fault("html_body", { times: 1, status: 404 });
    await assert.rejects(ask());
    await fault("session_not_valid", { times: 1 });
    await assert.rejects(ask());
    await fault("masked_field", { times: 1, object: "CTI_Login__c", field: "CTI_Password__c" });
    const masked = await connection.sobject("CTI_Login__c").findOne({ User_Id__c: alice }, ["CTI_Password__c"]);
    assert.equal(masked.CTI_Password__c, "*".repeat("made-up-Alice".length));
  },

  async logsInAgain() {
    const refreshFn = async (_, done) => {
      const { accessToken } = await byAssertion();
      done(null, accessToken);
    };
    const first = await byAssertion();
    const { accessToken, instanceUrl } = first;
    const connection = new jsforce.Connection({ accessToken, instanceUrl, version, refreshFn });
    await control("POST", "expire-sessions");
    await control("DELETE", "seen");
    assert.equal((await connection.query("SELECT Id FROM Account LIMIT 1")).totalSize, 1);
    assert.equal((await control("GET", "seen")).logins, 1);
  },
};

(async () => {
  for (const [name, scene] of Object.entries(scenes)) {
    await scene();
    console.log(name, "ok");
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

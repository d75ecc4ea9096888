// Writes a CTI login into an org with jsforce, as an administrator's script would.
//
// Usage: cti_login.cjs URL CLIENT_ID RECORD, the client's secret and the password in the environment.

const jsforce = require("jsforce");

const [loginUrl, clientId, record] = process.argv.slice(2);
const { CLIENT_SECRET: clientSecret, PASSWORD: password } = process.env;

(async () => {
  const connection = new jsforce.Connection({ oauth2: { loginUrl, clientId, clientSecret }, version: "67.0" });
  await connection.authorize({ grant_type: "client_credentials" });
  const written = await connection.sobject("CTI_Login__c").create({ ...JSON.parse(record), CTI_Password__c: password });
  console.log(written.id);
})();

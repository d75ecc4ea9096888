"""simple-salesforce against the stand-in org: it was written elsewhere, and knows an org's ways.

Usage: salesforce.py URL CA_FILE KEY_FILE. The org is the seed of tests/it/salesforce/simulator/clients.rs, over https.
"""

import sys
import warnings

import requests
from simple_salesforce import Salesforce, exceptions, format_soql

# Of advice to somebody at a browser.
warnings.simplefilter("ignore")

URL, CA_FILE, KEY_FILE = sys.argv[1:]
HOST = URL.removeprefix("https://")
ALICE = "005000000000002AAA"


def session():
    session = requests.Session()
    session.verify = CA_FILE
    session.trust_env = False
    return session


def control(method, path, **body):
    reply = session().request(method, f"{URL}/simulator/{path}", json=body or None)
    assert reply.ok, reply.text
    return reply


def fault(name, **keys):
    control("POST", "faults", fault=name, **keys)


# A host that ends in a slash keeps the client from adding Salesforce's own domain to it.
def by_assertion(**keys):
    keys = {"username": "reader@example.com", "consumer_key": "jwt-client", "privatekey_file": KEY_FILE} | keys
    return Salesforce(instance_url=f"{HOST}/", session=session(), version="67.0", **keys)


def by_secret(secret="a secret"):
    return Salesforce(domain=f"{HOST}/", session=session(), version="67.0", consumer_key="secret-client",
                      consumer_secret=secret)


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def logs_in_by_assertion():
    salesforce = by_assertion()
    assert salesforce.sf_instance == HOST
    user = salesforce.oauth2("userinfo")
    assert user["preferred_username"] == "reader@example.com", user
    assert user["organization_id"] == "00D000000000001EAA", user


def logs_in_by_secret():
    salesforce = by_secret()
    assert salesforce.oauth2("userinfo")["preferred_username"] == "writer@example.com"


def is_refused_a_login():
    error = refused(exceptions.SalesforceAuthenticationFailed, lambda: by_assertion(consumer_key="nobody"))
    assert error.code == "invalid_client_id", error
    error = refused(exceptions.SalesforceAuthenticationFailed, lambda: by_assertion(username="carol@example.com"))
    assert "user hasn't approved this consumer" in str(error), error
    error = refused(exceptions.SalesforceAuthenticationFailed, lambda: by_secret("another secret"))
    assert error.code == "invalid_client", error


def queries():
    salesforce = by_secret()
    soql = format_soql("SELECT Id, CTI_Username__c, User__r.Username FROM CTI_Login__c "
                       "WHERE User_Id__c = {} AND Active__c = true LIMIT 2", ALICE)
    found = salesforce.query(soql)
    assert (found["totalSize"], found["done"]) == (1, True), found
    record = found["records"][0]
    assert record["attributes"]["type"] == "CTI_Login__c", record
    assert (record["CTI_Username__c"], record["User__r"]["Username"]) == ("1245456", "alice@example.com"), record
    none = salesforce.query(format_soql("SELECT Id FROM CTI_Login__c WHERE CTI_Username__c = {}", "a\\' OR Id != '"))
    assert none["records"] == [], none
    quoted = salesforce.query(format_soql("SELECT Id FROM Contact WHERE LastName = {}", "O'Neil \\ \"Söhne\""))
    assert quoted["totalSize"] == 1, quoted


def pages():
    salesforce = by_secret()
    first = salesforce.query("SELECT Id, Name FROM Account ORDER BY Name")
    assert (first["totalSize"], len(first["records"]), first["done"]) == (5, 2, False), first
    names = [it["Name"] for it in salesforce.query_all_iter("SELECT Id, Name FROM Account ORDER BY Name")]
    assert names == ["A", "B", "C", "D", "E"], names


def writes():
    salesforce = by_secret()
    made = salesforce.Contact.create({"LastName": "Müller", "Phone": "+4930123"})
    assert made["success"] is True and made["errors"] == [], made
    assert salesforce.Contact.update(made["id"], {"Phone": "+4930124"}) == 204
    assert salesforce.Contact.get(made["id"])["Phone"] == "+4930124"
    assert salesforce.Contact.delete(made["id"]) == 204
    refused(exceptions.SalesforceResourceNotFound, lambda: salesforce.Contact.get(made["id"]))

    new, same = (salesforce.CTI_Login__c.upsert("User_Id__c/005000000000009AAA", {"User__c": ALICE, "CTI_Extension__c": it})
                 for it in ("0099", "0100"))
    assert (new, same) == (201, 200)
    assert salesforce.CTI_Login__c.get_by_custom_id("User_Id__c", "005000000000009AAA")["CTI_Extension__c"] == "0100"


def describes():
    writer, reader = by_secret(), by_assertion()
    fields = {it["name"]: it for it in writer.CTI_Login__c.describe()["fields"]}
    assert fields["CTI_Password__c"]["type"] == "encryptedstring" and not fields["CTI_Password__c"]["filterable"]
    assert fields["User_Id__c"]["externalId"] and fields["ADFS_Username__c"]["updateable"]
    # Field-level security hides it from this user.
    assert "ADFS_Username__c" not in {it["name"] for it in reader.CTI_Login__c.describe()["fields"]}
    error = refused(exceptions.SalesforceMalformedRequest,
                    lambda: reader.query("SELECT ADFS_Username__c FROM CTI_Login__c"))
    assert error.content[0]["errorCode"] == "INVALID_FIELD", error.content


def masks():
    soql = f"SELECT CTI_Password__c FROM CTI_Login__c WHERE User_Id__c = '{ALICE}'"
    assert by_secret().query(soql)["records"][0]["CTI_Password__c"] == "made-up-Alice"
    assert by_assertion().query(soql)["records"][0]["CTI_Password__c"] == "*" * len("made-up-Alice")


def meets_its_mistakes():
    salesforce = by_secret()
    for soql, code in (("SELECT Id FRM Account", "MALFORMED_QUERY"),
                       ("SELECT Id FROM Nothing__c", "INVALID_TYPE"),
                       ("SELECT Nothing__c FROM Account", "INVALID_FIELD"),
                       ("SELECT Id FROM CTI_Login__c WHERE CTI_Password__c = 'x'", "INVALID_FIELD")):
        error = refused(exceptions.SalesforceMalformedRequest, lambda: salesforce.query(soql))
        assert error.content[0]["errorCode"] == code, error.content
    error = refused(exceptions.SalesforceMalformedRequest, lambda: salesforce.Contact.create({"Phone": "1"}))
    assert error.content[0]["errorCode"] == "REQUIRED_FIELD_MISSING", error.content


def logs_in_again():
    salesforce = by_secret()
    control("POST", "expire-sessions")
    control("DELETE", "seen")
    assert salesforce.query("SELECT Id FROM Account LIMIT 1")["totalSize"] == 1
    assert control("GET", "seen").json()["logins"] == 1


def meets_an_org_in_trouble():
    salesforce = by_secret()
    soql = "SELECT Id FROM Account LIMIT 1"
    fault("daily_limit", times=1)
    error = refused(exceptions.SalesforceRefusedRequest, lambda: salesforce.query(soql))
    assert error.content[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED", error.content
    fault("unavailable", times=1)
    error = refused(exceptions.SalesforceGeneralError, lambda: salesforce.query(soql))
    assert error.status == 503, error.status
    fault("two_rows", times=1)
    refused(exceptions.SalesforceMoreThanOneRecord,
            lambda: salesforce.CTI_Login__c.get_by_custom_id("User_Id__c", ALICE))
    fault("record_locked", times=1)
    made = lambda: salesforce.Contact.create({"LastName": "Locked"})
    error = refused(exceptions.SalesforceMalformedRequest, made)
    assert error.content[0]["errorCode"] == "UNABLE_TO_LOCK_ROW", error.content
    fault("cut_body", times=1)
    refused(requests.exceptions.RequestException, lambda: salesforce.query(soql))
    fault("reset", times=1)
    refused(requests.exceptions.ConnectionError, lambda: salesforce.query(soql))
    assert salesforce.query(soql)["totalSize"] == 1
    limits = salesforce.limits()["DailyApiRequests"]
    usage = salesforce.api_usage["api-usage"]
    assert usage.used + limits["Remaining"] == limits["Max"] == usage.total, (usage, limits)


for scene in (logs_in_by_assertion, logs_in_by_secret, is_refused_a_login, queries, pages, writes, describes, masks,
              meets_its_mistakes, logs_in_again, meets_an_org_in_trouble):
    scene()
    print(scene.__name__, "ok")

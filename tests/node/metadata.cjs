// The metadata source of clients/salesforce against the Metadata API's own types, as jsforce has them, a parser of Apex, and
// itself.
//
// Usage: metadata.cjs FOLDER, the one with sfdx-project.json. CommonJS, so that NODE_PATH finds jsforce, and the parser that
// came with it, beside the build.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { ApexErrorListener, ApexParserFactory } = require("@apexdevtools/apex-parser");
const { ApiSchemas } = require("jsforce/lib/api/metadata/schema");
const xml2js = require("xml2js");

const folder = process.argv[2];
const NAMESPACE = "http://soap.sforce.com/2006/04/metadata";
const version = JSON.parse(fs.readFileSync(path.join(folder, "sfdx-project.json"))).sourceApiVersion;

/** What the Metadata API got after the version whose types jsforce has. */
const NEWER = {
  Flow: { apiVersion: "?number", environments: "?string" },
  FlowStart: { recordTriggerType: "?string" },
};

/** How a file of a type ends. */
const ENDS = {
  ApexClass: ".cls-meta.xml",
  CustomField: ".field-meta.xml",
  CustomMetadata: ".md-meta.xml",
  CustomObject: ".object-meta.xml",
  Flow: ".flow-meta.xml",
  PermissionSet: ".permissionset-meta.xml",
};

function walk(at) {
  return fs.readdirSync(at, { withFileTypes: true }).flatMap((it) => {
    const inside = path.join(at, it.name);
    return it.isDirectory() ? walk(inside) : [inside];
  });
}

/** Root name and content; a list for each element. Throws where the text is not well-formed. */
function parse(file) {
  let found;
  const parser = new xml2js.Parser({ async: false, strict: true, emptyTag: () => ({}) });
  parser.parseString(fs.readFileSync(file, "utf8"), (error, tree) => {
    if (error) throw new Error(`${file}: ${error.message}`);
    found = Object.entries(tree)[0];
  });
  return found;
}

function propsOf(type) {
  const schema = ApiSchemas[type];
  return { ...(schema.extends ? propsOf(schema.extends) : {}), ...schema.props, ...NEWER[type] };
}

function checkValue(where, kind, value) {
  if (kind in ApiSchemas) return check(where, kind, value);
  const text = typeof value === "object" ? value._ : value;
  if (kind === "boolean") assert.match(text, /^(true|false)$/, where);
  else if (kind === "number") assert.match(text, /^\d+(\.\d+)?$/, where);
  else assert(kind === "any" || typeof text === "string", where);
}

function check(where, type, { $, _, ...elements }) {
  const props = propsOf(type);
  for (const [name, values] of Object.entries(elements)) {
    const kind = props[name];
    assert(kind, `${where}: ${type} has no ${name}`);
    assert(Array.isArray(kind) || values.length === 1, `${where}: ${name} stands more than once`);
    for (const value of values) checkValue(`${where}: ${name}`, String(kind).replace(/^\?/, ""), value);
  }
  for (const [name, kind] of Object.entries(props)) {
    const needed = typeof kind === "string" && !kind.startsWith("?");
    assert(!needed || name in elements, `${where}: ${type} needs ${name}`);
  }
}

const files = walk(path.join(folder, "force-app"));
const parts = files.filter((it) => it.endsWith("-meta.xml")).map((file) => [file, ...parse(file)]);
const ofType = (wanted) => parts.filter(([, type]) => type === wanted);
const nameOf = (file, type) => path.basename(file).slice(0, -ENDS[type].length);
const names = (type) => ofType(type).map(([file]) => nameOf(file, type));
const fieldsOf = (object) => new Map(ofType("CustomField").filter(([file]) => file.includes(`/objects/${object}/`))
  .map(([, , field]) => [field.fullName[0], field]));

class Mistakes extends ApexErrorListener {
  found = [];

  apexSyntaxError(line, column, message) {
    this.found.push(`${line}:${column} ${message}`);
  }
}

const scenes = {
  everyFileIsOfATypeAndWellFormed() {
    for (const [file, type, content] of parts) {
      assert(ENDS[type] && file.endsWith(ENDS[type]), `${file}: no place for ${type}`);
      assert.equal(content.$.xmlns, NAMESPACE, file);
      check(file, type, content);
      if (content.fullName) assert.equal(content.fullName[0], nameOf(file, type), file);
      if (content.apiVersion) assert.equal(content.apiVersion[0], version, file);
    }
    for (const type of Object.keys(ENDS)) assert(names(type).length > 0, `no ${type} was found`);
  },

  everyClassIsApexAndHasItsMetadata() {
    const classes = files.filter((it) => it.endsWith(".cls"));
    assert.deepEqual(classes.map((it) => path.basename(it, ".cls")).sort(), names("ApexClass").sort());
    for (const file of classes) {
      const parser = ApexParserFactory.createParser(fs.readFileSync(file, "utf8"));
      const mistakes = new Mistakes();
      parser.removeErrorListeners();
      parser.addErrorListener(mistakes);
      parser.compilationUnit();
      assert.deepEqual(mistakes.found, [], file);
    }
  },

  permissionSetsNameWhatIsThere() {
    for (const [file, , set] of ofType("PermissionSet")) {
      for (const { apexClass } of set.classAccesses ?? []) assert(names("ApexClass").includes(apexClass[0]), file);
      for (const { name } of set.customMetadataTypeAccesses ?? []) assert(names("CustomObject").includes(name[0]), file);
      for (const { object } of set.objectPermissions ?? []) assert(names("CustomObject").includes(object[0]), file);
      for (const { field } of set.fieldPermissions ?? []) {
        const [object, name] = field[0].split(".");
        const found = fieldsOf(object).get(name);
        assert(found, `${file}: there is no ${field[0]}`);
        assert.notEqual(found.required?.[0], "true", `${file}: ${field[0]} is required, and a deployment fails`);
      }
    }
  },

  theIntegrationUserReadsEverythingAndWritesNothing() {
    const [, , set] = ofType("PermissionSet").find(([file]) => file.includes("Switchboard_Integration"));
    const optional = [...fieldsOf("CTI_Login__c")].filter(([, it]) => it.required?.[0] !== "true");
    const readable = set.fieldPermissions.filter((it) => it.readable[0] === "true" && it.editable[0] === "false");
    assert.deepEqual(readable.map((it) => it.field[0]).sort(), optional.map(([name]) => `CTI_Login__c.${name}`).sort());
    const [{ allowRead, viewAllRecords, ...others }] = set.objectPermissions;
    assert.deepEqual([allowRead[0], viewAllRecords[0]], ["true", "true"]);
    assert(Object.entries(others).every(([name, [value]]) => name === "object" || value === "false"));
    assert.deepEqual(set.userPermissions.map((it) => it.name[0]).sort(), ["ApiEnabled", "ViewEncryptedData"]);
  },

  theFlowAndTheSettingsNameFieldsThatAreThere() {
    const [[, , flow]] = ofType("Flow");
    const fields = fieldsOf(flow.start[0].object[0]);
    const [{ assignToReference, value }] = flow.assignments[0].assignmentItems;
    for (const reference of [assignToReference[0], value[0].elementReference[0]]) {
      assert(fields.has(reference.replace("$Record.", "")), reference);
    }
    assert.equal(flow.start[0].connector[0].targetReference[0], flow.assignments[0].name[0]);
    const [[, , record]] = ofType("CustomMetadata");
    const values = record.values.map((it) => it.field[0]).sort();
    assert.deepEqual(values, [...fieldsOf("Switchboard_Setting__mdt").keys()].sort());
  },

  theCallCenterHasWhatSalesforceAsksFor() {
    const [root, { section }] = parse(path.join(folder, "../opencti/callcenter.xml"));
    assert.equal(root, "callCenter");
    const items = section[0].item.map((it) => [it.$.name, it._]);
    assert.deepEqual(section[0].item.map((it) => it.$.sortOrder), items.map((_, at) => String(at)));
    const required = ["reqInternalName", "reqDisplayName", "reqAdapterUrl", "reqUseApi", "reqSoftphoneHeight", "reqSoftphoneWidth"];
    assert.deepEqual(items.map(([name]) => name), [...required, "reqSalesforceCompatibilityMode"]);
    assert.match(Object.fromEntries(items).reqInternalName, /^[A-Za-z][A-Za-z0-9]{0,39}$/);
    assert.match(Object.fromEntries(items).reqAdapterUrl, /^https:/);
  },
};

for (const [name, scene] of Object.entries(scenes)) {
  scene();
  console.log(name, "ok");
}

// Prints the reference of the client, API.md, from its declarations. `npm run build` writes it; a test compares it.

import path from "node:path";
import { SyntaxKind } from "typescript/unstable/ast";
import { API } from "typescript/unstable/sync";

/** The entries of the package, and their declarations. */
const ENTRIES = {
  "@switchboard/client": "switchboard.d.ts",
  "@switchboard/client/shared": "shared.d.ts",
  "@switchboard/client/openajax": "openajax.d.ts",
  "@switchboard/client/testing": "fake.d.ts",
};

const HEAD = `# API reference

Generated from the declarations in \`src\` by \`npm run build\`; do not edit. The [README](README.md) begins with examples, and
[errors](../../docs/errors.md) explains the codes of the broker. \`@switchboard/client/acqueon\`, which is not here, has the types of the
messages that Acqueon Workspace documents ([migrate](../../docs/guides/migrate.md)).
`;

/** Returns the reference as Markdown. */
export function reference() {
  const here = import.meta.dirname;
  const compiler = new API({ cwd: here });
  try {
    const paths = Object.values(ENTRIES).map((file) => path.join(here, "src", file));
    const snapshot = compiler.updateSnapshot({ openFiles: paths });
    const sources = paths.map((file) => snapshot.getDefaultProjectForFile(file).program.getSourceFile(file));
    const files = Object.keys(ENTRIES).map((name, at) => [name, sources[at]]);
    return [HEAD, contents(files), ...files.map(([name, file]) => section(name, file))].join("\n");
  } finally {
    compiler.close();
  }
}

const KINDS = {
  [SyntaxKind.FunctionDeclaration]: "function",
  [SyntaxKind.InterfaceDeclaration]: "interface",
  [SyntaxKind.ClassDeclaration]: "class",
  [SyntaxKind.TypeAliasDeclaration]: "type",
};

const isExported = ({ modifiers = [] }) => modifiers.some(({ kind }) => kind === SyntaxKind.ExportKeyword);
const title = ({ kind, name }) => `${KINDS[kind]} ${name.text}`;

/** What a file exports: functions, then the others in their order. */
function exported({ statements }) {
  const found = statements.filter(isExported);
  const isFunction = ({ kind }) => kind === SyntaxKind.FunctionDeclaration;
  return [...found.filter(isFunction), ...found.filter((statement) => !isFunction(statement))];
}

function contents(files) {
  const link = (statement) => `[${statement.name.text}](#${title(statement).toLowerCase().replace(" ", "-")})`;
  return files.map(([name, file]) => `- \`${name}\`: ${exported(file).map(link).join(", ")}\n`).join("");
}

function section(name, file) {
  // The first line of the file names the entry.
  const about = file.text.match(/^(\/\/.*\n)+/)[0].split("\n").slice(1).map((line) => line.slice(3)).join("\n").trim();
  const lines = [`## \`${name}\`\n`, ...(about ? [`${about}\n`] : []), ...exported(file).map((statement) => declaration(statement, file))];
  const others = file.statements.filter((statement) => KINDS[statement.kind] && !isExported(statement));
  if (others.length) {
    const text = others.map((statement) => code(statement, file)).join("\n");
    lines.push(`### Types that these use\n\nThey are not exported.\n\n${fenced(text)}`);
  }
  return lines.join("\n");
}

const fenced = (text) => `\`\`\`ts\n${text}\n\`\`\`\n`;

function declaration(statement, file) {
  const { members } = statement;
  const about = documentation(statement, file);
  const lines = [`### ${title(statement)}\n`, ...(about ? [`${about}\n`] : [])];
  if (!members) return [...lines, fenced(code(statement, file))].join("\n");
  const head = code(statement, file).split("{", 1)[0].trim();
  if (head !== title(statement)) lines.push(`\`${head}\`\n`);
  return [...lines, ...members.map((member) => item(member, file)), ""].join("\n");
}

/** A member in one line, and what its comment says. */
function item(member, file) {
  const signature = code(member, file).replace(/\s+/g, " ").replace(/;$/, "");
  const about = documentation(member, file);
  return `- \`${signature}\`${about && `\\\n  ${about.replaceAll("\n", "\n  ")}`}`;
}

/** The text of a node, without its comment. */
function code({ pos, end, jsDoc }, file) {
  return file.text.slice(jsDoc?.at(-1)?.end ?? pos, end).trim().replace(/^export /, "");
}

/** The comment of a node, as Markdown. */
function documentation({ jsDoc }, file) {
  const last = jsDoc?.at(-1);
  if (!last) return "";
  // Its position is that of the comments before it, too.
  const text = file.text.slice(last.pos, last.end).split("/**").at(-1).replace(/\*\/$/, "");
  return text.split("\n").map((line) => line.replace(/^\s*\* ?/, "").trim()).join("\n").trim();
}

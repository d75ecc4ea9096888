// Reads GET /metrics, in the text format of Prometheus.

/** Returns [{ name, labels, value }]. */
export function samples(text) {
  const read = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]));
    read.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return read;
}

/** Returns the samples of a metric. */
export function of(read, wanted) {
  return read.filter(({ name }) => name === wanted);
}

/** Returns the value of a metric without labels, or undefined. */
export function one(read, wanted) {
  return of(read, wanted)[0]?.value;
}

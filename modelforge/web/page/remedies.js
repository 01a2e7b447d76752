// What a refusal says that would work, as settings that a button makes.
const SETTING = /"([a-z_0-9]+)": ("[^"]*"|-?\d+(?:\.\d+)?(?:e-?\d+)?|true|false)|\b([a-z0-9]+(?:_[a-z0-9]+)+) (\d+(?:\.\d+)?)\b/g;
const TOGETHER = /^ (?:fits at|with) $/;

/**
 * The settings in a remedy: `[{ name: value, … }, …]`, each a way by itself. Words of it that belong together are one
 * way: "use_4bit": true fits at "per_device_train_batch_size": 2. `known`: whether a body has such a field.
 */
export function waysIn(remedy, known) {
  const ways = [];
  let end = null;
  for (const match of remedy.matchAll(SETTING)) {
    const [text, quoted, json, plain, number] = match;
    const name = quoted ?? plain;
    if (!known(name)) continue;
    const together = end !== null && TOGETHER.test(remedy.slice(end, match.index));
    const way = together ? ways.at(-1) : {};
    way[name] = JSON.parse(json ?? number);
    if (!together) ways.push(way);
    end = match.index + text.length;
  }
  const seen = new Set();
  return ways.filter((way) => !seen.has(JSON.stringify(way)) && seen.add(JSON.stringify(way)));
}

/** A way in words: what its button says. */
export const wayInWords = (way) => Object.entries(way).map(([name, value]) => `${name}: ${value}`).join(", ");

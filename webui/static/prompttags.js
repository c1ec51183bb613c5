// Putting a card into a prompt and taking it out again.

const SEPARATOR = " ";

// "<lora:name:" of a network's tag, whatever its weight; null for a plain word.
function head(tag) {
  return /^<[^:>]+:[^:>]+:/.exec(tag)?.[0] ?? null;
}

// [start, end) of the tag or word in the text; null where it is not there.
function place(text, tag) {
  const opening = head(tag);
  if (opening) {
    const start = text.indexOf(opening);
    const end = start < 0 ? -1 : text.indexOf(">", start);
    return end < 0 ? null : [start, end + 1];
  }
  const word = new RegExp(`(?<![\\p{L}\\p{N}_-])${tag.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}_-])`, "u");
  const found = word.exec(text);
  return found ? [found.index, found.index + tag.length] : null;
}

export function contains(text, tag) {
  return place(text, tag) !== null;
}

export function withText(text, more) {
  return text.trimEnd() ? `${text.trimEnd()}${SEPARATOR}${more}` : more;
}

export function withoutText(text, less) {
  const start = text.lastIndexOf(less);
  return start < 0 ? text : cut(text, start, start + less.length);
}

// With the tag and its trigger words where it was not there, else without them.
export function toggled(text, tag, words) {
  const found = place(text, tag);
  if (!found) return withText(text, words ? `${tag}${SEPARATOR}${words}` : tag);
  const [start, end] = found;
  const behind = text.slice(end);
  const follows = words && behind.trimStart().startsWith(words);
  return cut(text, start, follows ? end + (behind.length - behind.trimStart().length) + words.length : end);
}

function cut(text, start, end) {
  const [before, behind] = [text.slice(0, start), text.slice(end)];
  return before.endsWith(SEPARATOR) || !before ? (before.trimEnd() + behind).trimStart() : before + behind;
}

// Ctrl+Up / Ctrl+Down: the weight of the selection, of the bracket around the cursor or of the word under it.

const WORD_END = " .,\\/!?%^*;:{}=`~()\r\n\t<>[]";

// The new text and selection for `delta` steps, or null where there is nothing to weigh.
export function weigh(text, start, end, delta) {
  if (start === end) {
    const around = bracket(text, start, "<", ">") ?? bracket(text, start, "(", ")") ?? word(text, start);
    if (!around) return null;
    [start, end] = around;
  }
  if (text[start - 1] === "<" || text[start] === "<") return weighNetwork(text, start, end, delta);
  if (text[start - 1] !== "(" || !closes(text, end)) {
    while (end > start && text[end - 1] === " ") end -= 1;
    if (start === end) return null;
    text = `${text.slice(0, start)}(${text.slice(start, end)}:1)${text.slice(end)}`;
    start += 1;
    end += 1;
  }
  const tail = /^:?\s*([0-9]*\.?[0-9]+)?\s*\)/.exec(text.slice(end));
  const weight = round(Number(tail[1] ?? 1.1) + 0.1 * delta);
  if (weight === 1) {
    const plain = text.slice(0, start - 1) + text.slice(start, end) + text.slice(end + tail[0].length);
    return { text: plain, start: start - 1, end: end - 1 };
  }
  return { text: `${text.slice(0, end)}:${weight})${text.slice(end + tail[0].length)}`, start, end };
}

function closes(text, end) {
  return /^(:\s*[0-9]*\.?[0-9]+\s*)?\)/.test(text.slice(end));
}

function round(weight) {
  return Math.round(weight * 100) / 100;
}

// The inside of the innermost pair around `at`, without its weight.
function bracket(text, at, open, close) {
  let depth = 0;
  let start = at - 1;
  for (; start >= 0; start -= 1) {
    if (text[start] === close) depth += 1;
    else if (text[start] === open && depth-- === 0) break;
  }
  if (start < 0) return null;
  const finish = text.indexOf(close, at);
  if (finish < 0) return null;
  const inside = text.slice(start + 1, finish);
  const weight = /:\s*[0-9]*\.?[0-9]+\s*$/.exec(inside);
  return [start + 1, weight ? start + 1 + weight.index : finish];
}

function word(text, at) {
  let start = at;
  let end = at;
  while (start > 0 && !WORD_END.includes(text[start - 1])) start -= 1;
  while (end < text.length && !WORD_END.includes(text[end])) end += 1;
  return start === end ? null : [start, end];
}

function weighNetwork(text, start, end, delta) {
  const finish = text.indexOf(">", end);
  if (finish < 0) return null;
  const tail = /^:\s*(-?[0-9]*\.?[0-9]+)/.exec(text.slice(end));
  const weight = round(Number(tail?.[1] ?? 1) + 0.05 * delta);
  const rest = text.slice(end + (tail?.[0].length ?? 0));
  return { text: `${text.slice(0, end)}:${weight}${rest}`, start, end };
}

// Alt+Left / Alt+Right: move the comma-separated item under the cursor by one place.
export function shift(text, at, step) {
  const items = text.split(",");
  let position = 0;
  const index = items.findIndex((item) => {
    position += item.length + 1;
    return at < position;
  });
  const other = index + step;
  if (index < 0 || other < 0 || other >= items.length) return null;
  const bare = items.map((item) => item.trim());
  const leads = items.map((item) => /^\s*/.exec(item)[0]);
  [bare[index], bare[other]] = [bare[other], bare[index]];
  const moved = bare.map((item, i) => leads[i] + item).join(",");
  const start = bare.slice(0, other).reduce((sum, item, i) => sum + leads[i].length + item.length + 1, 0) + leads[other].length;
  return { text: moved, start, end: start + bare[other].length };
}

// A job's progress in words: what the bar, the window title and a listener are told.

const WAITING = { queued: "In queue", waking: "Waking the endpoint" };
const PHASES = { loading: "Loading the model", encoding: "Reading the prompt", decoding: "Decoding", storing: "Saving" };

export function percent(view) {
  return Math.max(0, Math.min(100, Math.round((view.progress?.fraction ?? 0) * 100)));
}

export function wording(view) {
  const { progress = {}, queue_position: place, state } = view;
  const eta = progress.eta_s === null || progress.eta_s === undefined ? "" : ` ETA: ${duration(progress.eta_s)}`;
  if (state === "queued" && place) return `In queue: ${place}${eta}`;
  if (progress.note) return `${progress.note}${eta}`;
  if (state === "queued") return `${WAITING.queued}…${eta}`;
  if (state === "waking") return `${WAITING.waking}…${eta}`;
  const phase = percent(view) === 0 && PHASES[progress.phase] ? ` ${PHASES[progress.phase]}…` : "";
  return `${percent(view)}%${eta}${phase}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}m ${whole % 60}s` : `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
}

// Seconds from the click to the visible picture, as the job's own timeline has them.
export function taken(view) {
  const { accepted, visible, stored } = view.timeline ?? {};
  const finish = visible ?? stored;
  return accepted && finish ? Math.max(0, finish - accepted) : null;
}

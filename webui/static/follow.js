// One job, as it happens: server-sent events, and polling where a network in between will not let them through.
import { api } from "./api.js";

const POLL_MS = 1000;
const ERRORS_BEFORE_POLLING = 2;

export const FINAL = new Set(["succeeded", "failed", "stopped", "cancelled", "expired"]);

// Calls `onView` with each state of the job until it is final; `onLost` with an error where it cannot be followed.
// Returns a function that stops following.
export function follow(id, onView, onLost) {
  let over = false;
  let source = null;
  let timer = null;
  let errors = 0;
  let newest = -1;

  const stop = () => {
    over = true;
    source?.close();
    clearTimeout(timer);
  };

  const take = (view) => {
    if (over || view.version < newest) return;
    newest = view.version;
    if (FINAL.has(view.state)) stop();
    onView(view);
  };

  const poll = async () => {
    source?.close();
    try {
      const view = await api(`/api/v1/jobs/${encodeURIComponent(id)}`);
      errors = 0;
      take(view);
    } catch (refused) {
      errors += 1;
      if (!over && (refused.status === 404 || refused.status === 401 || errors > 60)) {
        stop();
        onLost(refused);
      }
    }
    if (!over) timer = setTimeout(poll, POLL_MS);
  };

  source = new EventSource(`/api/v1/jobs/${encodeURIComponent(id)}/events`);
  source.addEventListener("job", (event) => {
    errors = 0;
    take(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    if (over) return;
    errors += 1;
    // A refusal closes the source for good; a broken line it mends by itself, once or twice.
    if (source.readyState === EventSource.CLOSED || errors >= ERRORS_BEFORE_POLLING) poll();
  });
  return stop;
}

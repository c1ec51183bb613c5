// Small means for building and finding elements. Text only ever enters the page through textContent.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name in made && !name.startsWith("aria") && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

// Resolves with the first element that matches, now or once Gradio has drawn it.
export function present(selector) {
  const found = document.querySelector(selector);
  if (found) return Promise.resolve(found);
  return new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      const drawn = document.querySelector(selector);
      if (!drawn) return;
      observer.disconnect();
      resolve(drawn);
    });
    observer.observe(document.documentElement, { childList: true, subtree: true });
  });
}

export const byId = (id) => document.getElementById(id);

export function show(target, visible) {
  target.hidden = !visible;
}

const announcer = element("p", { class: "sr-only", role: "status", "aria-live": "polite" });

// Tell it to those who listen to the page instead of looking at it.
export function announce(text) {
  if (!announcer.isConnected) document.body.append(announcer);
  if (announcer.textContent !== text) announcer.textContent = text;
}

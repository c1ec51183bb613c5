// The pages work without this: it shows the password, warns of Caps Lock, asks before what cannot be undone, uploads models.
"use strict";

// Within the web UI the page stands in a frame, whose dialog has the way to the other pages.
if (window.self !== window.top) document.documentElement.classList.add("framed");

document.querySelector(".bar [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

for (const box of document.querySelectorAll("[data-reveals]")) {
  const field = box.form.elements[box.dataset.reveals];
  box.addEventListener("change", () => { field.type = box.checked ? "text" : "password"; });
}

for (const field of document.querySelectorAll("[data-caps]")) {
  const hint = document.getElementById(field.dataset.caps);
  const look = (event) => { hint.hidden = !(event.getModifierState && event.getModifierState("CapsLock")); };
  field.addEventListener("keydown", look);
  field.addEventListener("keyup", look);
}

for (const field of document.querySelectorAll("[data-copies]")) {
  field.addEventListener("focus", () => field.select());
  field.select();
}

// Before what cannot be undone; first of all listeners, so that nothing is sent where somebody says no.
document.addEventListener("submit", (event) => {
  const asks = event.submitter?.dataset.asks ?? event.target.dataset.asks;
  if (asks && !window.confirm(asks)) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}, true);

// Parts of a page that keep up with the studio (htmx). No script may make markup of a text here (Trusted Types): the
// browser itself reads each answer as a document, in which no script runs, and htmx, which wants to read a text, gets that.
const READ = "<html>";
let answer = null;
Document.parseHTMLUnsafe = (text) => {
  if (text !== READ || !answer) throw new TypeError("Only an answer of the portal is read as markup.");
  return answer;
};
document.addEventListener("htmx:beforeSend", ({ detail }) => { detail.xhr.responseType = "document"; });
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { xhr } = detail;
  document.body.classList.remove("stale");
  answer = xhr.response;
  detail.serverResponse = READ;
  if (new URL(xhr.responseURL || window.location.href).pathname === "/portal/login") {
    detail.shouldSwap = false;
    window.location.reload();
  } else if (!answer || xhr.status >= 400) {
    detail.shouldSwap = false;
    if (detail.requestConfig.verb !== "get") refused(answer?.querySelector('[role="alert"]')?.textContent ?? `The portal answered ${xhr.status}. Try again.`);
  }
});

function refused(text) {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.setAttribute("role", "alert");
  notice.textContent = text;
  document.querySelector("main header")?.after(notice);
}

for (const lost of ["htmx:sendError", "htmx:timeout"]) document.addEventListener(lost, () => document.body.classList.add("stale"));

// A model file goes as the body of one request, so that its progress can be shown and it can be taken back.
for (const form of document.querySelectorAll("form[data-upload]")) {
  const { file, kind, name, folder, own } = form.elements;
  const [meter, wrong] = [form.querySelector(".meter"), form.querySelector(".notice")];
  const [bar, told] = [meter.querySelector("progress"), meter.querySelector("span")];
  const send = form.querySelector(".primary");
  const say = (text) => { wrong.textContent = text; wrong.hidden = !text; };
  const busy = (on) => { meter.hidden = !on; send.disabled = on; };
  const reason = (request) => {
    try { return JSON.parse(request.responseText).error.message; } catch { return `The portal answered ${request.status}. Try again.`; }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [chosen] = file.files;
    if (!chosen) return;
    const query = new URLSearchParams({ kind: kind.value, filename: chosen.name, name: name.value.trim(), folder: folder.value.trim(), own: own ? own.value : "true" });
    const request = new XMLHttpRequest();
    request.open("POST", `${form.dataset.upload}?${query}`);
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      bar.value = loaded / total;
      const done = loaded === total ? "Checking and storing…" : `${Math.floor((100 * loaded) / total)} %`;
      told.textContent = `${done} (${(loaded / 2 ** 20).toFixed(0)} of ${(total / 2 ** 20).toFixed(0)} MiB)`;
    });
    request.addEventListener("load", () => {
      busy(false);
      if (request.status === 201) window.location.assign("/portal/models?done=uploaded");
      else say(reason(request));
    });
    request.addEventListener("error", () => { busy(false); say("The connection broke before the file was there. Send it again."); });
    request.addEventListener("abort", () => busy(false));
    meter.querySelector(".stop").onclick = () => request.abort();
    say("");
    busy(true);
    request.send(chosen);
  });

  for (const kindOf of ["dragenter", "dragover"]) form.addEventListener(kindOf, (event) => { event.preventDefault(); form.classList.add("over"); });
  for (const kindOf of ["dragleave", "drop"]) form.addEventListener(kindOf, () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) file.files = event.dataTransfer.files;
  });
}

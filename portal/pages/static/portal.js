// The pages work without this: it only shows the password, warns of Caps Lock, and asks before what cannot be undone.
"use strict";

// Within the web UI the page stands in a frame, whose dialog has the way to the other pages.
if (window.self !== window.top) document.documentElement.classList.add("framed");

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

for (const form of document.querySelectorAll("form[data-asks]")) {
  form.addEventListener("submit", (event) => {
    if (!window.confirm(form.dataset.asks)) event.preventDefault();
  });
}

// A model file goes as the body of one request, so that its progress can be shown and it can be taken back.
for (const form of document.querySelectorAll("form[data-upload]")) {
  const { file, kind, name, folder } = form.elements;
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
    const query = new URLSearchParams({ kind: kind.value, filename: chosen.name, name: name.value.trim(), folder: folder.value.trim() });
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

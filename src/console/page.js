// Keeps the open page current. The page works without it.
"use strict";

(() => {
  const news = document.getElementById("news");
  const PAUSE_MS = 250;
  let planned = 0;
  let running = false;
  let again = false;

  /** Fetches the page anew and swaps the list in place; focus and open menus stay. */
  async function refresh() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected || !answer.ok) {
        if (new URL(answer.url).pathname === "/login") location.assign("/login");
        if (answer.ok) location.assign(answer.url);
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      swap(fresh);
    } catch {
      // Away for a moment: the stream comes back and asks again.
    } finally {
      running = false;
      if (again) {
        again = false;
        soon();
      }
    }
  }

  function swap(fresh) {
    const old = document.getElementById("inbox");
    const next = fresh.getElementById("inbox");
    if (!old || !next) return;
    const before = Number(old.dataset.unread);
    const known = new Set([...old.querySelectorAll(".note")].map((note) => note.id));
    for (const note of next.querySelectorAll(".note.unread")) {
      if (known.size > 0 && !known.has(note.id)) note.classList.add("fresh");
    }
    for (const text of old.querySelectorAll(".note details[open]")) {
      const same = next.querySelector(`#${CSS.escape(text.closest(".note").id)} details`);
      if (same) same.open = true;
    }
    const place = focusPlace(old);
    old.replaceWith(next);
    document.title = fresh.title;
    if (place) restore(next, place);
    localise(next);
    const more = Number(next.dataset.unread) - before;
    if (more > 0) news.textContent = more === 1 ? "1 new notification" : `${more} new notifications`;
  }

  /** Where the focus is, in words that outlive the old list. */
  function focusPlace(list) {
    const element = document.activeElement;
    if (!element || !list.contains(element)) return null;
    const notes = [...list.querySelectorAll(".note")];
    const note = element.closest(".note");
    return { id: note?.id, index: notes.indexOf(note), name: element.getAttribute("name"), href: element.getAttribute("href") };
  }

  function restore(list, place) {
    const notes = list.querySelectorAll(".note");
    const note = (place.id && document.getElementById(place.id)) || notes[Math.min(place.index, notes.length - 1)];
    const within = note || list;
    const same = place.name
      ? within.querySelector(`button[name="${place.name}"]`)
      : [...within.querySelectorAll("a")].find((link) => link.getAttribute("href") === place.href);
    (same || within.querySelector("a, button"))?.focus({ preventScroll: true });
  }

  function soon() {
    clearTimeout(planned);
    planned = setTimeout(refresh, PAUSE_MS);
  }

  /** Exact moments in the reader's own time and language. */
  function localise(within) {
    for (const time of within.querySelectorAll("time")) {
      time.title = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "full", timeStyle: "short" });
    }
  }

  async function post(action, data) {
    const answer = await fetch(action, {
      method: "POST",
      body: new URLSearchParams(data),
      redirect: "manual",
      keepalive: true,
    });
    return answer.type === "opaqueredirect" || answer.ok;
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const action = form.getAttribute("action");
    if (!["/mark", "/mark-all-read"].includes(action)) return;
    event.preventDefault();
    try {
      if (await post(action, new FormData(form, event.submitter))) return refresh();
    } catch {
      // Fall through: the browser tells the person what is wrong.
    }
    location.reload();
  });

  // Whoever opens a notification's page has read it.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-read]");
    if (link) post("/mark", { id: link.dataset.read, read: "true" }).catch(() => {});
  });

  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.me[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById("q")?.focus();
    }
  });

  localise(document);
  const stream = new EventSource("/events");
  let opened = false;
  stream.addEventListener("hello", () => {
    // After an interruption something may have been missed.
    if (opened) soon();
    opened = true;
  });
  stream.addEventListener("hint", soon);
  stream.addEventListener("reload", soon);
  // "3 min ago" grows old by itself.
  setInterval(() => document.visibilityState === "visible" && refresh(), 60_000);
})();

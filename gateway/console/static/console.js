// Behaviour of all pages: filters of tables, copying, questions before a loss, refreshing, and shortcuts (`g` and a letter, `/`).

const SHORTCUT_MS = 1500;
const REFRESH_MS = 5000;

for (const input of document.querySelectorAll("[data-filter]")) {
  const rows = document.querySelectorAll(`${input.dataset.filter} tbody tr`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent);
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = label; }, SHORTCUT_MS);
  });
}

for (const button of document.querySelectorAll("[data-confirm]")) {
  button.addEventListener("click", (event) => {
    if (!confirm(button.dataset.confirm)) {
      event.preventDefault();
    }
  });
}

for (const button of document.querySelectorAll("[data-refresh]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.ariaPressed !== "true"));
  });
  setInterval(() => {
    if (button.ariaPressed === "true" && !document.hidden) {
      refresh(button.dataset.refresh);
    }
  }, REFRESH_MS);
}

// Replaces a part of the page by its newest state, unless it has the focus. The session's idle timeout goes on.
async function refresh(selector) {
  const part = document.querySelector(selector);
  if (part.contains(document.activeElement)) {
    return;
  }
  const response = await fetch(location.href);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const newest = page.querySelector(selector);
  if (newest) {
    part.replaceWith(newest);
  } else {
    location.reload();
  }
}

// Where the navigation is wider than the screen.
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

let goes = 0;

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  } else if (event.key === "g") {
    goes = event.timeStamp;
  } else if (event.timeStamp - goes < SHORTCUT_MS) {
    document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`)?.click();
  }
});

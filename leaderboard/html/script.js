"use strict";
// Sort, filter and open rows. Everything is readable without this script.

function value(row, column) {
  const cell = row.children[column];
  const text = cell.textContent.trim();
  const number = Number(cell.dataset.v ?? (text || NaN));
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function pairs(body) {
  return [...body.querySelectorAll("tr.row")].map((row) => [row, row.nextElementSibling]);
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const sign = direction === "ascending" ? 1 : -1;
  const missing = (v) => v === "-" || v === "";
  const sorted = pairs(body).sort(([a], [b]) => {
    const [x, y] = [value(a, column), value(b, column)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return sign * (x < y ? -1 : x > y ? 1 : 0);
  });
  for (const pair of sorted) body.append(...pair);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
  table.classList.add("sorted");
}

function filter(section) {
  const words = section.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const target = section.querySelector("select").value;
  let shown = 0;
  for (const [row, detail] of pairs(section.querySelector("table.main").tBodies[0])) {
    const name = `${row.cells[0].textContent} ${row.dataset.family}`.toLowerCase();
    const fits = words.every((word) => name.includes(word)) && (!target || row.dataset.target === target);
    row.hidden = !fits;
    detail.hidden = !fits || row.querySelector(".open").getAttribute("aria-expanded") !== "true";
    shown += fits;
  }
  section.querySelector("output").textContent = `${shown} row${shown === 1 ? "" : "s"}`;
}

function open(button, opened) {
  button.setAttribute("aria-expanded", String(opened));
  button.closest("tr").nextElementSibling.hidden = !opened;
}

function openAddressed() {
  const detail = location.hash && document.getElementById(location.hash.slice(1));
  if (!detail || !detail.matches("tr.detail")) return;
  open(detail.previousElementSibling.querySelector(".open"), true);
  detail.previousElementSibling.scrollIntoView();
}

for (const section of document.querySelectorAll("section.table")) {
  const table = section.querySelector("table.main");
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
      sort(table, column, descending ? "ascending" : "descending");
    });
  });
  for (const button of table.querySelectorAll(".open")) {
    button.addEventListener("click", () => {
      const opened = button.getAttribute("aria-expanded") !== "true";
      open(button, opened);
      if (opened) history.replaceState(null, "", `#${button.getAttribute("aria-controls")}`);
    });
  }
  section.querySelector(".switch")?.addEventListener("change", () => {
    for (const cell of table.querySelectorAll("tr.row > td:not([data-label])")) {
      cell.dataset.more = table.tHead.rows[0].cells[cell.cellIndex].textContent;
    }
  });
  section.querySelector("input").addEventListener("input", () => filter(section));
  section.querySelector("select").addEventListener("change", () => filter(section));
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  });
}

addEventListener("hashchange", openAddressed);
openAddressed();

// Storage may be closed to a page from disk; the theme then lasts as long as the page.
function theme(value) {
  try {
    if (value) localStorage.setItem("theme", value);
    return localStorage.getItem("theme");
  } catch {
    return value;
  }
}

if (theme()) document.documentElement.dataset.theme = theme();
document.querySelector(".theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  theme(root.dataset.theme);
});

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});

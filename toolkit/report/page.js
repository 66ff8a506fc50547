// Sorts tables, filters and sorts captions, and switches the theme. The page is readable without this script.
"use strict";

const numberOf = (text) => (text.match(/[-+]?\d+(\.\d+)?/) ? parseFloat(text.match(/[-+]?\d+(\.\d+)?/)[0]) : null);

function compare(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x === null ? 1 : -1; // cells without a number come last
  return a.localeCompare(b);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const by = (row) => row.cells[column].textContent;
      const order = column === 0 ? (a, b) => by(a).localeCompare(by(b)) : (a, b) => compare(by(a), by(b));
      const rows = [...table.tBodies[0].rows].sort(order);
      table.tBodies[0].append(...(up ? rows : rows.reverse()));
    });
  });
}

const form = document.querySelector(".controls");
if (form) {
  const [which, order, differs, shown] = ["case", "order", "differs", "shown"].map((id) => document.getElementById(id));
  const list = document.getElementById("cards");
  const cards = [...list.children].map((element) => ({
    element,
    file: element.dataset.file,
    distances: JSON.parse(element.dataset.distances),
    captions: [...element.querySelectorAll(".caption")].map((caption) => ({ caption, cases: JSON.parse(caption.dataset.cases) })),
  }));
  const distance = (card) => {
    const values = which.value ? [card.distances[which.value] ?? 0] : Object.values(card.distances);
    return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
  };
  const orders = {
    disagreement: (a, b) => distance(b) - distance(a),
    agreement: (a, b) => distance(a) - distance(b),
    file: (a, b) => a.file.localeCompare(b.file),
  };
  const update = () => {
    cards.sort(orders[order.value]);
    for (const card of cards) {
      card.element.hidden = differs.checked && distance(card) === 0;
      card.captions.forEach(({ caption, cases }, index) => {
        caption.hidden = Boolean(which.value) && index > 0 && !cases.includes(which.value); // the first caption is the baseline's
      });
    }
    list.append(...cards.map((card) => card.element));
    shown.textContent = `${cards.filter((card) => !card.element.hidden).length} of ${cards.length} images`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", update);
  form.reset(); // browsers restore form values on reload
  update();
}

const button = document.getElementById("theme");
const root = document.documentElement;
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
label();

for (const [event, open] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    for (const fold of document.querySelectorAll("main > section > details")) {
      if (open && !fold.open) fold.dataset.folded = "";
      if (open || "folded" in fold.dataset) fold.open = open;
      if (!open) delete fold.dataset.folded;
    }
  });
}

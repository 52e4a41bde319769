"use strict";
// Tables sort by a click on a column's head; without this script they are tables all the same.
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  const why = head.querySelector(".why");
  why?.remove();
  button.type = "button";
  button.className = "sort";
  button.textContent = head.textContent;
  head.replaceChildren(button, ...(why ? [why] : []));
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const numbers = [...body.rows].some((row) => "value" in row.cells[column].dataset);
    // Numbers start with the greatest, words with A.
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : !numbers;
    const key = (row) => {
      const cell = row.cells[column];
      return numbers ? ("value" in cell.dataset ? Number(cell.dataset.value) : NaN) : cell.textContent.trim();
    };
    const compare = (a, b) => {
      if (!numbers) { const order = a.localeCompare(b, undefined, { numeric: true }); return up ? order : -order; }
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // blanks stay last
      return up ? a - b : b - a;
    };
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}

// Rows are chosen by method, tree and cache, in every table and fold; without this script all are shown.
for (const bar of document.querySelectorAll(".filter")) {
  const [selects, count] = [[...bar.querySelectorAll("select")], bar.querySelector("output")];
  const marked = [...document.querySelectorAll("tr[data-rows], details[data-rows]")];
  const heads = [...document.querySelectorAll("th[data-rows]")];
  const every = new Set([...bar.querySelectorAll("option[data-rows]")].flatMap((option) => option.dataset.rows.split(" ")));
  bar.addEventListener("change", () => {
    const chosen = selects.map((select) => select.selectedOptions[0].dataset.rows).filter((rows) => rows !== undefined);
    const sets = chosen.map((rows) => new Set(rows.split(" ")));
    const kept = new Set([...every].filter((row) => sets.every((set) => set.has(row))));
    const shown = (node) => node.dataset.rows.split(" ").some((row) => kept.has(row));
    for (const node of marked) node.hidden = !shown(node);
    for (const head of heads) {
      head.hidden = !shown(head);
      for (const row of head.closest("table").tBodies[0].rows) row.cells[head.cellIndex].hidden = head.hidden;
    }
    count.value = sets.length ? `${kept.size} of ${every.size} rows` : "";
  });
  bar.hidden = false;
}

// A folded table has a field that finds rows by the names on their paths; without this script its folds open all the same.
const MOST_OPENED = 200; // rows that a search unfolds
const bare = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
for (const table of document.querySelectorAll(".folds")) {
  const find = table.querySelector(".find");
  const [field, count] = [find.querySelector("input"), find.querySelector("output")];
  const places = [...table.querySelectorAll("details, .scroll")];
  const folds = places.filter((place) => place.localName === "details");
  const around = (node) => node.parentElement.closest(".folds, .folds details, .folds .scroll");
  let rows, opened;
  const read = () => {
    const above = new Map([[table, ""]]); // of each place the names that lead to it; outer places come first
    for (const place of places) {
      const name = place.localName === "details" ? place.querySelector("b").textContent + " " : "";
      above.set(place, above.get(around(place)) + name);
    }
    return [...table.querySelectorAll("tbody tr")].map((row) => {
      const names = [...row.cells].filter((cell) => !("value" in cell.dataset)).map((cell) => cell.textContent);
      return { row, place: around(row), names: bare(above.get(around(row)) + names.join(" ")) };
    });
  };
  field.addEventListener("input", () => {
    rows ??= read();
    opened ??= new Set(folds.filter((fold) => fold.open));
    const words = bare(field.value).split(/\s+/).filter(Boolean);
    const kept = new Set([table]);
    let shown = 0;
    for (const { row, place, names } of rows) {
      row.hidden = !words.every((word) => names.includes(word));
      if (row.hidden) continue;
      shown += 1;
      for (let outer = place; !kept.has(outer); outer = around(outer)) kept.add(outer);
    }
    for (const place of places) place.hidden = !kept.has(place);
    const unfold = words.length && shown <= MOST_OPENED ? kept : opened;
    for (const fold of folds) fold.open = unfold.has(fold);
    const [part, all] = [shown, rows.length].map((number) => number.toLocaleString("en"));
    count.value = words.length ? `${part} of ${all} rows` : "";
    if (!words.length) opened = undefined;
  });
  find.hidden = false;
}

// What a mark says is shown at once, and on a touch; without this script the browser shows it after a while.
const tip = document.getElementById("tip");
function show(event) {
  const mark = event.target.closest && event.target.closest("svg *, td[title], td[data-tip], .why");
  if (mark && mark.title) { // of a cell: the browser would show it as well
    mark.dataset.tip = mark.title;
    mark.removeAttribute("title");
  }
  const why = mark && mark.popoverTargetElement; // a press opens it by itself
  if (why && (event.type === "pointerdown" || event.pointerType === "touch" || why.matches(":popover-open"))) {
    tip.hidden = true;
    return;
  }
  const title = why ? why.textContent : mark && (mark.dataset.tip || mark.querySelector(":scope > title")?.textContent);
  tip.hidden = !title;
  if (!title) return;
  tip.textContent = title;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4)) + "px";
  tip.style.top = (event.clientY + box.height + 18 < innerHeight ? event.clientY + 14 : event.clientY - box.height - 10) + "px";
}
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);

// Paper shows everything; of a table of thousands of rows what is unfolded.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open], .folds details)")];
  for (const fold of closed) fold.open = true;
});
addEventListener("afterprint", () => { for (const fold of closed) fold.open = false; });

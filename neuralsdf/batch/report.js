"use strict";
// A click on a heading sorts the table by that column: numbers by data-value, text by the displayed text. Cells
// without a value come last in both directions.
const table = document.getElementById("shapes");
const heads = table ? [...table.tHead.rows[0].cells] : [];
heads.forEach((head, column) => {
  const button = head.querySelector("button");
  if (!button) return;
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...table.tBodies[0].rows].map((row) => {
      const cell = row.cells[column], value = cell.dataset.value;
      return [value === undefined ? cell.textContent : value === "" ? "" : Number(value), row];
    });
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    });
    for (const [, row] of keyed) table.tBodies[0].append(row);
  });
});

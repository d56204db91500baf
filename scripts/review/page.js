"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.textContent = cell.textContent || "name";
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = row => row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;  // empty cells last
        const order = Number.isNaN(x) ? value(a).localeCompare(value(b), undefined, {numeric: true}) : x - y;
        return descending ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
for (const table of document.querySelectorAll("table.filterable")) {
  const rows = [...table.tBodies[0].rows];
  const tools = document.createElement("div");
  tools.className = "tools";
  const search = Object.assign(document.createElement("input"), {type: "search", placeholder: "filter rows"});
  search.setAttribute("aria-label", "filter rows");
  tools.append(search);
  const differs = row => [...row.cells].slice(Number(table.dataset.differences)).some(cell => !["=", ""].includes(cell.textContent));
  let only = null;
  if (rows.some(row => row.cells.length > Number(table.dataset.differences))) {
    const label = document.createElement("label");
    only = Object.assign(document.createElement("input"), {type: "checkbox", checked: rows.some(differs)});
    label.append(only, " only what differs");
    tools.append(label);
  }
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word)) || Boolean(only && only.checked && !differs(row));
    }
  };
  show();
  search.addEventListener("input", show);
  if (only) only.addEventListener("change", show);
  table.parentElement.before(tools);
}

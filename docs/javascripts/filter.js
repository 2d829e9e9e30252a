// Filters the first table of a page that has a <div class="filter">: by words, passes and count.
document.addEventListener("DOMContentLoaded", () => {
  const place = document.querySelector("div.filter");
  if (!place) return;
  place.innerHTML = `
    <label>Find <input type="search" name="words" placeholder="name or paper" size="18"></label>
    <label>Passes <select name="passes"><option value="">any</option><option value="1">1</option>
      <option value="T">T</option></select></label>
    <label>At most <input type="number" name="most" min="0" step="10000" placeholder="any"
      style="width: 8em"> parameters on Swin-T</label>
    <output></output>`;
  const table = document.querySelector("article table");
  const rows = [...table.tBodies[0].rows];
  const head = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const at = (row, name) => row.cells[head.indexOf(name)].textContent.trim();
  const field = (name) => place.querySelector(`[name=${name}]`).value.trim();
  const update = () => {
    const words = field("words").toLowerCase().split(/\s+/).filter(Boolean);
    const most = field("most") === "" ? Infinity : Number(field("most"));
    for (const row of rows) {
      const text = `${at(row, "method")} ${at(row, "paper")}`.toLowerCase();
      row.hidden = !(
        words.every((word) => text.includes(word)) &&
        ["", at(row, "passes")].includes(field("passes")) &&
        Number(at(row, "Swin-T").replaceAll(",", "")) <= most
      );
    }
    place.querySelector("output").textContent =
      `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  place.addEventListener("input", update);
  update();
});

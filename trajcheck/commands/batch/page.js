(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  // The rows as they stand in the file; the words of each, for the filter.
  const table = by("table"), body = table.tBodies[0], keys = JSON.parse(by("keys").textContent);
  const rows = [...body.rows].map((element, place) => ({ element, place, words: element.textContent.toLowerCase(), status: element.cells[1].textContent, ref: element.cells[2].textContent, sample: element.cells[3].textContent }));
  const heads = new Map([...table.querySelectorAll("thead button")].map((button) => [button, button.closest("th")]));
  const order = [...rows];
  let sorted = "";

  // Words in the order of their letters, numbers in them in that of their values: lr-0.03 before lr-0.1, seed9 before seed10.
  const collator = new Intl.Collator("en"), parts = new Map();
  function split(words) {
    if (!parts.has(words)) parts.set(words, words.split(/(\d+(?:\.\d+)?)/));
    return parts.get(words);
  }
  function compareWords(a, b) {
    const x = split(a), y = split(b);
    for (let i = 0; i < x.length && i < y.length; i++) {
      const order = i % 2 ? x[i] - y[i] : collator.compare(x[i], y[i]);
      if (order) return order;
    }
    return x.length - y.length;
  }

  // What is empty comes last either way, and equal rows keep the order of index.csv.
  function sort(button) {
    const place = button.dataset.place, head = heads.get(button), up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    const values = rows.map((row) => (keys[place] ? keys[place][row.place] : row.element.cells[place].textContent));
    const empty = (value) => value === null || value === "" || value === "–";
    const compare = keys[place] ? (a, b) => a - b : compareWords;
    order.sort((a, b) => {
      const x = values[a.place], y = values[b.place];
      return empty(x) || empty(y) ? empty(x) - empty(y) || a.place - b.place : sign * compare(x, y) || a.place - b.place;
    });
    for (const other of heads.values()) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    sorted = `, sorted by ${button.getAttribute("aria-label")}, ${up ? "ascending" : "descending"}`;
    body.replaceChildren(...order.map((row) => row.element));
    show();
  }
  for (const button of heads.keys()) button.addEventListener("click", () => sort(button));

  // A row is found if its status, reference and sample are chosen and it holds every word. Of many, the first are shown: a table of thousands of rows is slow.
  const words = by("words"), all = by("all"), boxes = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
  const MANY = 200;
  const choices = ["ref", "sample"].filter((name) => by(name));
  let whole = false, printing = false;
  const number = (value) => value.toLocaleString("en");
  function show() {
    const asked = words.value.toLowerCase().split(/\s+/).filter((word) => word);
    const statuses = new Set(boxes("status").filter((box) => box.checked).map((box) => box.value));
    const chosen = choices.map((name) => [name, by(name).value]).filter(([, value]) => value);
    let found = 0;
    for (const row of order) {
      const here = statuses.has(row.status) && chosen.every(([name, value]) => !row[name] || row[name] === value) && asked.every((word) => row.words.includes(word));
      found += here;
      row.element.hidden = !here || (found > MANY && !whole && !printing);
    }
    all.hidden = whole || printing || found <= MANY;
    const first = all.hidden ? "" : `; the first ${MANY} are shown`;
    by("count").textContent = `${number(found)} of ${number(rows.length)} rows${sorted}${first}.`;
  }
  words.addEventListener("input", show);
  for (const name of choices) by(name).addEventListener("change", show);
  for (const box of boxes("status")) box.addEventListener("change", show);
  all.addEventListener("click", () => { whole = true; show(); by("runs").focus(); });
  addEventListener("beforeprint", () => { printing = true; show(); });
  addEventListener("afterprint", () => { printing = false; show(); });

  // Columns that can be hidden.
  const hide = (box) => table.classList.toggle(`without-${box.value}`, !box.checked);
  for (const box of boxes("column")) box.addEventListener("change", () => hide(box));

  by("filter").hidden = false;
  boxes("column").forEach(hide); // a browser that comes back to the page has kept what was chosen
  show();
  root.dataset.ready = "yes";
})();

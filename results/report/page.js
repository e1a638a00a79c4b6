"use strict";
// Sorts, filters and opens the rows of the report; the address carries what was chosen. Every text that comes
// from a record goes through textContent.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("rows");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = data.rows.map((row, index) => ({ ...row, index, tr: body.rows[index] }));
  const controls = document.getElementById("filters");
  const heads = [...table.tHead.rows[0].cells];
  const initial = { sort: "", dir: "", row: "", find: "" };
  let state = { ...initial };

  function element(name, text, attributes) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    return made;
  }

  // The address.
  function read() {
    const found = new URLSearchParams(location.hash.slice(1));
    state = { ...initial };
    for (const [key, value] of found) state[key] = value;
  }
  function write(push) {
    const kept = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value) kept.set(key, value);
    const hash = kept.toString();
    if (hash === location.hash.slice(1)) return;
    history[push ? "pushState" : "replaceState"](null, "", hash ? "#" + hash : location.pathname + location.search);
  }

  // Filters.
  function facet(row, place) {
    const value = row.f[place];
    return Array.isArray(value) ? value.map((i) => data.pool[i]) : [data.pool[value]];
  }
  function matches(row) {
    for (let place = 0; place < data.facets.length; place++) {
      const wanted = state[data.facets[place]];
      if (wanted && !facet(row, place).includes(wanted)) return false;
    }
    if (!state.find) return true;
    row.text = row.text || row.tr.textContent.toLowerCase();
    return row.text.includes(state.find.toLowerCase());
  }
  // Sorting; missing values come last in both directions.
  let order = rows;
  function sort() {
    const place = data.columns.indexOf(state.sort);
    const sign = state.dir === "desc" ? -1 : 1;
    order = [...rows];
    if (place >= 0)
      order.sort((a, b) => {
        const x = a.s[place], y = b.s[place];
        if (x === y) return a.index - b.index;
        if (x === null || x === undefined) return 1;
        if (y === null || y === undefined) return -1;
        const less = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return sign * less || a.index - b.index;
      });
    heads.forEach((head, i) => {
      if (i === place) head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  // The rows that match, in order: a browser lays out a hundred of them at once, not thousands.
  const AT_ONCE = 100;
  const more = document.getElementById("more");
  let limit = AT_ONCE;
  function show() {
    const fitting = order.filter(matches);
    const kept = document.createDocumentFragment();
    fitting.forEach((row, i) => {
      if (i >= limit && !row.detail) return;
      kept.append(row.tr);
      if (row.detail) kept.append(row.detail);
    });
    body.replaceChildren(kept);
    document.getElementById("count").textContent = fitting.length + " of " + rows.length + " rows";
    more.hidden = fitting.length <= limit;
    more.textContent = "Show the other " + (fitting.length - limit);
    for (const part of document.querySelectorAll("[data-backbone]"))
      part.hidden = Boolean(state.backbone) && part.dataset.backbone !== state.backbone;
    for (const control of controls.elements)
      if (control.name && control.value !== (state[control.name] || "")) control.value = state[control.name] || "";
  }

  // What opens below a row.
  function table_of(header, lines) {
    const made = element("table");
    const top = made.createTHead().insertRow();
    header.forEach((text) => top.append(element("th", text, { scope: "col" })));
    const inner = made.createTBody();
    lines.forEach((line) => {
      const tr = inner.insertRow();
      line.forEach((text) => tr.append(element("td", text)));
    });
    return made;
  }
  function shown(value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
  function named([names, ...values]) {
    return Object.fromEntries(data.pool[names].map((name, i) => [name, values[i]]));
  }
  function lines_of(mapping, path) {
    return Object.entries(mapping).flatMap(([name, value]) => {
      const full = path ? path + "." + name : name;
      return value && typeof value === "object" && !Array.isArray(value) ? lines_of(value, full) : [[full, shown(value)]];
    });
  }
  function detail_of(row) {
    const d = row.d, list = element("dl");
    function add(name, content) {
      list.append(element("dt", name));
      const there = element("dd");
      there.append(content);
      list.append(there);
    }
    if (d.command) {
      const copy = element("button", "Copy", { type: "button", class: "more" });
      copy.addEventListener("click", () => navigator.clipboard && navigator.clipboard.writeText(d.command));
      const place = element("div");
      place.append(element("pre", d.command), copy);
      add("Repeat it", place);
    }
    if (d.reason) add("No result", d.reason);
    add("Published", d.published ? d.verdict + ". " + d.published : d.verdict);
    const seeds = d.seeds.map(([seed, trial, said, metrics, cost]) =>
      ({ seed, trial, said, metrics: named(metrics), cost: named(cost) }));
    const metrics = [...new Set(seeds.flatMap((one) => Object.keys(one.metrics)))];
    add("Seeds", table_of(["seed", ...metrics, "finished", "trial"], seeds.map((one) =>
      [one.seed, ...metrics.map((m) => shown(one.metrics[m])), one.said, one.trial])));
    const costs = [...new Set(seeds.flatMap((one) => Object.keys(one.cost)))];
    const devices = d.devices === undefined ? {} : data.pool[d.devices];
    if (costs.length) add("Costs", table_of(["", ...seeds.map((one) => "seed " + one.seed), "device"],
      costs.map((c) => [c.replaceAll("_", " "), ...seeds.map((one) => shown(one.cost[c])), devices[c] || ""])));
    const shares = Object.entries(d.shares ? named(d.shares) : {});
    if (shares.length) add("Gradient shares", table_of(["loss term", "mean share"], shares.map(([n, v]) => [n, shown(v)])));
    if (d.notes !== undefined) add("Notes", data.pool[d.notes].join("; "));
    for (const [name, title] of [["settings", "Settings"], ["tuning", "Search"], ["protocol", "Protocol"], ["environment", "Environment"]])
      if (d[name] !== undefined) {
        const fold = element("details");
        const lines = lines_of(data.pool[d[name]], "");
        fold.append(element("summary", lines.length + " values"), table_of(["", ""], lines));
        add(title, fold);
      }
    add("Data it saw", d.data || "none");
    if (d.weights) add("Weights SHA-256", element("code", d.weights));
    return list;
  }
  function open(row, wanted) {
    const button = row.tr.querySelector("button");
    button.setAttribute("aria-expanded", String(wanted));
    if (!wanted) {
      if (row.detail) row.detail.remove();
      row.detail = null;
      return;
    }
    if (row.detail) return;
    row.detail = element("tr", undefined, { class: "detail" });
    const cell = row.detail.insertCell();
    cell.colSpan = heads.length;
    cell.append(detail_of(row));
    row.tr.after(row.detail);
  }
  function show_open() {
    const ids = new Set(state.row ? state.row.split(" ") : []);
    for (const row of rows) if (ids.has(row.id) !== Boolean(row.detail)) open(row, ids.has(row.id));
  }

  // Images that flip.
  function bits_of(text) {
    const bytes = atob(text);
    return (index) => (bytes.charCodeAt(index >> 3) >> (7 - (index & 7))) & 1;
  }
  function flips(place) {
    const group = data.flips[Number(place.dataset.flips)];
    if (!group.outcomes) {
      place.append(element("p", group.why));
      return;
    }
    const label = element("label", "Images that one row flips ");
    const select = element("select");
    select.append(element("option", "most rows at once", { value: "" }));
    group.names.forEach((name, i) => select.append(element("option", name, { value: i })));
    label.append(select);
    const out = element("div");
    place.append(label, out);
    const teacher = bits_of(group.teacher), students = group.outcomes.map(bits_of);
    const margin = group.margins ? atob(group.margins) : null;
    const lost_by = new Uint16Array(group.images);
    for (let i = 0; i < group.images; i++)
      if (teacher(i)) for (const student of students) lost_by[i] += 1 - student(i);
    function list() {
      const one = select.value === "" ? null : students[Number(select.value)];
      const found = [];
      for (let i = 0; i < group.images; i++) {
        if (one ? teacher(i) !== one(i) : lost_by[i] > 0)
          found.push([i, one && !teacher(i) ? "gained" : "lost", lost_by[i], margin ? margin.charCodeAt(i) / 255 : null]);
      }
      found.sort((a, b) => b[2] - a[2] || (b[3] || 0) - (a[3] || 0) || a[0] - b[0]);
      const lines = found.slice(0, 20).map(([i, what, rows_, m]) =>
        [i, what, rows_ + " of " + students.length, m === null ? "–" : m.toFixed(2)]);
      out.replaceChildren(
        element("p", found.length + " images" + (found.length > 20 ? ", the first 20 here" : "") +
          "; an image is named by its place in the evaluation's order.", { class: "soft" }),
        table_of(["image", "flip", "lost by rows", "full precision's margin"], lines));
    }
    select.addEventListener("change", list);
    list();
  }

  // Wiring.
  controls.hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => {
    if (event.target.id === "sorting") {
      [state.sort, state.dir] = event.target.value.split(" ");
      sort();
      show();
      write(true);
      return;
    }
    state[event.target.name] = event.target.value;
    limit = AT_ONCE;
    show();
    write(event.target.tagName === "SELECT");
  });
  controls.addEventListener("reset", () => {
    state = { ...initial };
    apply();
    write(true);
  });
  heads.forEach((head, i) => head.firstChild.addEventListener("click", () => {
    const name = data.columns[i];
    const numbers = rows.some((row) => typeof row.s[i] === "number");
    const first = numbers && name !== "rank" && name !== "p" && name !== "cost" ? "desc" : "asc";
    const other = first === "asc" ? "desc" : "asc";
    if (state.sort !== name) [state.sort, state.dir] = [name, first];
    else if (state.dir === first) state.dir = other;
    else [state.sort, state.dir] = ["", ""];
    sort();
    show();
    write(true);
  }));
  const by_row = new Map(rows.map((row) => [row.tr, row]));
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button[aria-expanded]");
    if (!button) return;
    const row = by_row.get(button.closest("tr"));
    open(row, !row.detail);
    state.row = rows.filter((one) => one.detail).map((one) => one.id).join(" ");
    write(false);
  });
  more.addEventListener("click", () => {
    limit = rows.length;
    show();
  });
  function apply() {
    sort();
    show_open();
    show();
  }
  window.addEventListener("popstate", () => { read(); apply(); });
  window.addEventListener("hashchange", () => { read(); apply(); });
  document.querySelectorAll("[data-jump]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault(); // the address belongs to the filter
    document.getElementById(link.hash.slice(1)).scrollIntoView();
  }));
  document.querySelectorAll("[data-flips]").forEach(flips);
  read();
  apply();
})();

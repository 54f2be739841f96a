// --- the page -----------------------------------------------------------------------------------

/** The theme: the system's, or the one that was chosen. Printed pages are always light. */
function startTheme() {
  const select = document.getElementById("theme");
  const apply = () => {
    document.documentElement.style.colorScheme = select.value;
  };
  select.addEventListener("change", apply);
  apply(); // a browser may have kept the choice over a reload
}

/** Where a section's moving part goes; null where the page has no such section. */
function placeOf(name) {
  const section = document.getElementById(name);
  return section && section.appendChild(make("div", { class: "part" }));
}

async function start() {
  startTheme();
  const root = document.documentElement;
  try {
    const { about, tables } = await readData();
    const names = about.rows.names;
    const places = { chart: placeOf("chart"), rows: placeOf("rows"), items: placeOf("items") };
    if (places.chart) new Chart(places.chart, tables.rows, about.chart, names);
    if (places.rows) new RowsTable(places.rows, tables[about.rows.table], about.rows);
    if (places.items) new ItemBrowser(places.items, tables, about.items);
    root.dataset.ready = "yes";
  } catch (error) {
    root.dataset.ready = "failed";
    const said = `The data of this page could not be read: ${error}. Open it in a current browser.`;
    document.getElementById("main").prepend(make("p", { class: "failure", role: "alert" }, said));
    throw error;
  }
}

start();

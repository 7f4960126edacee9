"""The live page at /: what runs in the house now, without any asset from elsewhere. Polls /v1/snapshot each second."""

from typing import Final

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

HTML: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Edgewright node</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{color-scheme:light dark}
body{font:1.1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:1.6rem}
#now{font-size:2rem;font-weight:600;margin:.2rem 0}
svg{width:100%;height:9rem;border:1px solid #8888}polyline{fill:none;stroke:#1769aa;stroke-width:2}
@media(prefers-color-scheme:dark){polyline{stroke:#7cc0ff}}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #8884}
</style></head><body><main>
<h1>Edgewright node</h1>
<p id="now" role="status" aria-live="polite">Waiting for readings</p><p id="detail"></p>
<h2 id="chart-title">Power, last 5 minutes</h2>
<svg viewBox="0 0 300 100" preserveAspectRatio="none" role="img" aria-labelledby="chart-title chart-text">
<polyline id="line" vector-effect="non-scaling-stroke"></polyline></svg><p id="chart-text"></p>
<h2>Energy today</h2>
<table><thead><tr><th scope="col">Appliance<th scope="col">kWh</thead><tbody id="energy"></tbody></table>
<h2>Models</h2><table><thead><tr><th scope="col">Name<th scope="col">Version<th scope="col">Variant<th scope="col">State
<th scope="col">Unknown<th scope="col">Drift</thead><tbody id="models"></tbody></table>
<p id="link"></p></main>
<script>
const by = id => document.getElementById(id);
const say = (id, text) => { if (by(id).textContent !== text) by(id).textContent = text; };
function rows(id, list) {
  by(id).replaceChildren(...list.map(cells => {
    const tr = document.createElement("tr");
    tr.append(...cells.map(c => { const td = document.createElement("td"); td.textContent = c; return td; }));
    return tr;
  }));
}
function chart(readings) {
  if (!readings.length) return;
  const end = readings.at(-1)[0], shown = readings.filter(r => r[0] > end - 300), watts = shown.map(r => r[1]);
  const top = Math.max(10, ...watts), low = Math.min(0, ...watts);
  const points = shown.map(([t, w]) => (300 - end + t) + "," + (98 - 96 * (w - low) / (top - low)));
  by("line").setAttribute("points", points.join(" "));
  say("chart-text", "Now " + watts.at(-1).toFixed(0) + " W, highest " + Math.max(...watts).toFixed(0) + " W.");
}
async function poll() {
  try {
    const answer = await fetch("/v1/snapshot");
    const s = await answer.json(), first = Object.values(s.snapshots)[0];
    say("now", first ? first.appliance : s.readings.length ? "The first window is filling" : "Waiting for readings");
    say("detail", first ? (100 * first.probability).toFixed(0) + " % sure, " + first.watts.toFixed(0) + " W" : "");
    chart(s.readings);
    const energy = Object.entries(s.energyTodayJoules).sort((a, b) => b[1] - a[1]);
    rows("energy", energy.map(([label, joules]) => [label, (joules / 3.6e6).toFixed(3)]));
    rows("models", s.models.map(m => [m.name, m.version, m.variant, m.state,
      m.unknownRatio === null ? "-" : (100 * m.unknownRatio).toFixed(0) + " %",
      m.drift === null ? "-" : m.drift.toFixed(2)]));
    say("link", "");
  } catch (error) { say("link", "The node does not answer; trying again."); }
  setTimeout(poll, 1000);
}
poll();
</script></body></html>
"""

// Opens a workflow in the real front end as a user does, runs it, and says in JSON what was seen.
// node canvas.mjs URL WORKFLOW.json SCREENSHOT.png '{"NodeType": {"widget": value to set before the run}}'
// Needs playwright-core (in NODE_PATH) and the environment's CHROMIUM.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const [url, workflow, screenshot, values] = process.argv.slice(2);
const START = 60_000;
const RUN = 180_000;
// The front end asks the server about files, draws and lays out at its own pace, and announces none of it.
const SETTLE = 2_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1500, height: 900 } });
  await page.goto(url, { waitUntil: "domcontentloaded" });
  // The front end ends its start by opening a workflow of its own.
  await page.waitForFunction(() => window.app?.graph?.nodes.length, null, { timeout: START });
  await page.waitForTimeout(SETTLE);

  await page.evaluate((text) => app.loadGraphData(JSON.parse(text)), readFileSync(workflow, "utf8"));
  await page.waitForTimeout(SETTLE);
  const loaded = await page.evaluate(complaints);
  const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);

  await page.evaluate(setWidgets, JSON.parse(values));
  const ended = await run(page);
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  await page.waitForTimeout(SETTLE);
  await page.screenshot({ path: screenshot });
  const images = await page.evaluate(imagesOnNodes);

  console.log(JSON.stringify({ loaded, prompt, ended, ran: await page.evaluate(complaints), images }));
} finally {
  await browser.close();
}

async function run(page) {
  await page.evaluate(() => {
    for (const event of ["execution_success", "execution_error", "execution_interrupted"])
      app.api.addEventListener(event, () => (window.runEnded = event));
  });
  await page.click('button[data-testid="queue-button"]');
  // A graph that the server refuses shows only the overlay.
  const ended = () => window.runEnded ?? document.querySelector('[data-testid="error-overlay"]')?.innerText;
  const found = await page.waitForFunction(ended, null, { timeout: RUN });
  return found.jsonValue();
}

// These run in the page.

function complaints() {
  const names = (nodes) => nodes.map((node) => `${node.id} ${node.type}`);
  return {
    missing: names(app.graph.nodes.filter((node) => !(node.type in LiteGraph.registered_node_types))),
    marked: names(app.graph.nodes.filter((node) => node.has_errors)),
    overlay: document.querySelector('[data-testid="error-overlay"]')?.innerText ?? null,
  };
}

function setWidgets(values) {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in (values[node.type] ?? {})) widget.value = values[node.type][widget.name];
}

function imagesOnNodes() {
  const drawn = (node) => (node.imgs ?? []).filter((image) => image.naturalWidth > 0).length;
  return Object.fromEntries(app.graph.nodes.filter(drawn).map((node) => [node.id, drawn(node)]));
}

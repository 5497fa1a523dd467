// What the scripts of this folder share: a page with the front end, a run in it, and what is seen on its canvas.
// Needs playwright-core (in NODE_PATH) and the environment's CHROMIUM.

import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const START = 180_000;
const RUN = 180_000;
// So long a card or a picture may take to come.
export const SHOWN = 20_000;
// The front end asks the server about files, draws and lays out at its own pace, and announces none of it.
export const SETTLE = 2_000;

// Hands a page with the front end to `use` and closes the browser behind it.
export async function withPage(url, use, viewport = { width: 1500, height: 900 }) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  try {
    const page = await browser.newPage({ viewport });
    await page.goto(url, { waitUntil: "domcontentloaded", timeout: START });
    await started(page);
    return await use(page);
  } finally {
    await browser.close();
  }
}

// The front end ends its start by opening a workflow of its own.
export async function started(page) {
  await page.waitForFunction(() => window.app?.graph?.nodes.length, null, { timeout: START });
  await page.waitForTimeout(SETTLE);
}

// Presses Run; says how the run ended, or what the server has against the graph.
export async function run(page) {
  await page.evaluate(() => {
    window.runEnded = null;
    for (const event of ["execution_success", "execution_error", "execution_interrupted"])
      app.api.addEventListener(event, () => (window.runEnded = event), { once: true });
  });
  await page.click('button[data-testid="queue-button"]');
  // A graph that the server refuses shows only the overlay.
  const ended = () => window.runEnded ?? document.querySelector('[data-testid="error-overlay"]')?.innerText;
  const found = await page.waitForFunction(ended, null, { timeout: RUN });
  return found.jsonValue();
}

export async function fit(page) {
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
  await page.waitForTimeout(SETTLE);
  // A busy machine fetches pictures late; those that stay away are for the tests to say.
  await page.waitForFunction(allShown, null, { timeout: SHOWN }).catch(() => {});
}

// These run in the page.

export function complaints() {
  const names = (nodes) => nodes.map((node) => `${node.id} ${node.type}`);
  return {
    missing: names(app.graph.nodes.filter((node) => !(node.type in LiteGraph.registered_node_types))),
    marked: names(app.graph.nodes.filter((node) => node.has_errors)),
    overlay: document.querySelector('[data-testid="error-overlay"]')?.innerText ?? null,
  };
}

function allShown() {
  const made = (node) => app.nodeOutputs?.[node.id]?.images?.length ?? 0;
  const drawn = (node) => (node.imgs ?? []).filter((image) => image.naturalWidth > 0).length;
  return app.graph.nodes.every((node) => drawn(node) >= made(node));
}

export function imagesOnNodes() {
  const drawn = (node) => (node.imgs ?? []).filter((image) => image.naturalWidth > 0).length;
  return Object.fromEntries(app.graph.nodes.filter(drawn).map((node) => [node.id, drawn(node)]));
}

// Runs graphs in the real front end and says in JSON which text was shown, and whether any of it became more than text.
// node hostile.mjs URL '[{"name": ..., "graph": graph as for POST /prompt, "dropdown": [node id, widget] or null}]'
// Needs playwright-core (in NODE_PATH) and the environment's CHROMIUM.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const [url, stages, screenshots] = process.argv.slice(2);
const START = 90_000;
const RUN = 120_000;
// Error dialogs and texts on nodes come after the server's word, at the front end's own pace.
const SETTLE = 1_500;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1500, height: 900 } });
  const odd = [];
  page.on("dialog", (dialog) => (odd.push(`dialog ${dialog.message()}`), dialog.dismiss()));
  page.on("popup", (popup) => odd.push(`popup ${popup.url()}`));
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.graph?.nodes.length, null, { timeout: START });
  await page.waitForTimeout(SETTLE);

  const seen = {};
  for (const stage of JSON.parse(readFileSync(stages, "utf8"))) {
    await page.evaluate((graph) => app.loadApiJson(graph, "hostile"), stage.graph);
    await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
    await page.waitForTimeout(SETTLE);
    if (stage.dropdown) await openDropdown(page, ...stage.dropdown);
    else await run(page);
    await page.waitForTimeout(SETTLE);
    await openReport(page);
    await page.screenshot({ path: `${screenshots}_${stage.name}.png` });
    seen[stage.name] = await page.evaluate(shown);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Escape");
  }
  console.log(JSON.stringify({ seen, odd, url: page.url() }));
} finally {
  await browser.close();
}

async function run(page) {
  const answered = page.waitForResponse((one) => one.url().endsWith("/prompt") && one.request().method() === "POST");
  await page.evaluate(() => void app.queuePrompt(0, 1));
  const answer = await answered;
  // A graph that the server refuses runs nothing.
  if (!answer.ok()) return;
  const { prompt_id } = await answer.json();
  const ended = async (id) => id in (await (await fetch(`/history/${id}`)).json());
  for (const end = Date.now() + RUN; !(await page.evaluate(ended, prompt_id)); await page.waitForTimeout(300))
    if (Date.now() > end) throw new Error("the graph did not come to its end");
}

// Newer front ends fold an error's words away.
async function openReport(page) {
  for (const name of [/show report/i, /see error/i, /view details/i, /^info for/i]) {
    const button = page.getByRole("button", { name }).first();
    if (await button.isVisible().catch(() => false)) {
      await button.click({ timeout: 3_000 }).catch(() => {});
      await page.waitForTimeout(500);
    }
  }
}

// As a user does: a click on the widget where it is drawn.
async function openDropdown(page, id, name) {
  const place = await page.evaluate(
    ([id, name]) => {
      const node = app.graph.nodes.find((node) => String(node.id) === id);
      const widget = node.widgets.find((widget) => widget.name === name);
      const y = (widget.y ?? widget.last_y) + 10;
      const [left, top] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + y]);
      const box = app.canvas.canvas.getBoundingClientRect();
      return [left + box.left, top + box.top];
    },
    [id, name],
  );
  await page.mouse.click(...place);
}

// This runs in the page: all text that somebody can see, and what a script planted in it would have left.
function shown() {
  const fields = [...document.querySelectorAll("textarea, input")].map((field) => field.value);
  const links = [...document.querySelectorAll("a[href]")].map((link) => link.href);
  return {
    hit: window.__hit ?? null,
    text: [document.body.innerText, ...fields].join("\n").slice(0, 400_000),
    links: links.filter((link) => link.startsWith("javascript:") || link.includes("planted")),
    elements: document.querySelectorAll("[data-planted], img[src$='planted']").length,
  };
}

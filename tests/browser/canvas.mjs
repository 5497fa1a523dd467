// Opens workflows in the real front end as a user does, runs each, and says in JSON what was seen.
// node canvas.mjs URL SCREENSHOTS-PREFIX '{"WORKFLOW.json": {"NodeType": {"widget": value to set before the run}}}'

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { SETTLE, complaints, fit, imagesOnNodes, run, started, withPage } from "./page.mjs";

const [url, screenshots, workflows] = process.argv.slice(2);

await withPage(url, async (page) => {
  const seen = {};
  for (const [path, values] of Object.entries(JSON.parse(workflows))) {
    const name = basename(path, ".json");
    try {
      seen[name] = await openedAndRun(page, readFileSync(path, "utf8"), values, `${screenshots}_${name}.png`);
    } catch (error) {
      // the others are seen all the same, on a page that starts anew
      seen[name] = { error: String(error) };
      await page.reload();
      await started(page);
    }
  }
  console.log(JSON.stringify(seen));
});

async function openedAndRun(page, text, values, screenshot) {
  await page.evaluate((text) => app.loadGraphData(JSON.parse(text)), text);
  await page.waitForTimeout(SETTLE);
  const loaded = await page.evaluate(complaints);
  const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);

  await page.evaluate(setWidgets, values);
  const ended = await run(page);
  await fit(page);
  await page.screenshot({ path: screenshot });
  const images = await page.evaluate(imagesOnNodes);
  return { loaded, prompt, ended, ran: await page.evaluate(complaints), images };
}

// Runs in the page.

function setWidgets(values) {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in (values[node.type] ?? {})) widget.value = values[node.type][widget.name];
}

// Opens a workflow in the real front end as a user does, runs it, and says in JSON what was seen.
// node canvas.mjs URL WORKFLOW.json SCREENSHOT.png '{"NodeType": {"widget": value to set before the run}}'

import { readFileSync } from "node:fs";
import { SETTLE, complaints, fit, imagesOnNodes, run, withPage } from "./page.mjs";

const [url, workflow, screenshot, values] = process.argv.slice(2);

await withPage(url, async (page) => {
  await page.evaluate((text) => app.loadGraphData(JSON.parse(text)), readFileSync(workflow, "utf8"));
  await page.waitForTimeout(SETTLE);
  const loaded = await page.evaluate(complaints);
  const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);

  await page.evaluate(setWidgets, JSON.parse(values));
  const ended = await run(page);
  await fit(page);
  await page.screenshot({ path: screenshot });
  const images = await page.evaluate(imagesOnNodes);

  console.log(JSON.stringify({ loaded, prompt, ended, ran: await page.evaluate(complaints), images }));
});

// Runs in the page.

function setWidgets(values) {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? [])
      if (widget.name in (values[node.type] ?? {})) widget.value = values[node.type][widget.name];
}

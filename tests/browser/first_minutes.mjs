// Runs templates of a pack from the template browser, as a new user does, and says in JSON what was seen.
// node first_minutes.mjs URL PACK SCREENSHOTS-PREFIX '["Template", ...]'

import { SETTLE, SHOWN, complaints, fit, imagesOnNodes, run, withPage } from "./page.mjs";

const [url, pack, screenshots, templates] = process.argv.slice(2);
const CLICKS = 3;

await withPage(url, async (page) => {
  const seen = {};
  await open(page);
  const listed = await page.$$eval('[data-testid^="template-workflow-"]', (cards) =>
    cards.map((card) => card.dataset.testid.replace("template-workflow-", "")),
  );
  await page.screenshot({ path: `${screenshots}_list.png` });
  for (const name of JSON.parse(templates)) {
    if (!(await page.$(card(name)))) await open(page);
    await choose(page, name);
    const loaded = await page.evaluate(complaints);
    const began = Date.now();
    const ended = await run(page);
    const seconds = (Date.now() - began) / 1000;
    await fit(page);
    await page.screenshot({ path: `${screenshots}_${name.replaceAll(" ", "_")}.png` });
    const types = await page.evaluate(() => Object.fromEntries(app.graph.nodes.map((node) => [node.id, node.type])));
    seen[name] = { loaded, ended, seconds, images: await page.evaluate(imagesOnNodes), types };
  }
  console.log(JSON.stringify({ listed, seen }));
});

function card(name) {
  return `[data-testid="template-workflow-${name}"]`;
}

// A click that comes while the cards still move does nothing: a user clicks again.
async function choose(page, name) {
  for (let clicks = 1; ; clicks++) {
    await page.click(card(name));
    try {
      await page.waitForSelector(card(name), { state: "detached", timeout: SHOWN });
      return page.waitForTimeout(SETTLE);
    } catch (error) {
      if (clicks === CLICKS) throw error;
    }
  }
}

// The dialog, at the pack's templates, all of them: it adds cards as one scrolls, in the order of the server's disk.
async function open(page) {
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.BrowseTemplates"));
  await page.getByText(pack, { exact: true }).first().click({ timeout: SHOWN });
  const cards = page.locator('[data-testid^="template-workflow-"]');
  await cards.first().waitFor({ timeout: SHOWN });
  for (let shown = 0; shown < (await cards.count()); ) {
    shown = await cards.count();
    await cards.last().scrollIntoViewIfNeeded();
    await page.waitForTimeout(SETTLE);
  }
}

// Tries the documents out in a browser, as a newcomer would: charges a data session and reads an account.
//
//   node docs.mjs ADMIN CHROMIUM [FOLDER]
//
// ADMIN is the operator's side of a running `nchf serve --demo`, CHROMIUM the browser's program; screenshots go to FOLDER.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [admin, executablePath, folder] = process.argv.slice(2);
assert(admin && executablePath, "usage: node docs.mjs ADMIN CHROMIUM [FOLDER]");

const browser = await chromium.launch({
    executablePath,
    args: [
        // Root has no sandbox, and containers rarely let others have one; the only page is ours.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
});

try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
    page.setDefaultTimeout(30_000);
    const faults = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("request", (request) => {
        const url = request.url();
        if (!url.startsWith(admin) && !url.startsWith("data:") && !url.startsWith("blob:")) faults.push(`asks for ${url}`);
    });
    const look = async (name) => folder && page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

    await page.goto(`${admin}/docs`);
    await page.getByRole("heading", { name: "Nchf_ConvergedCharging" }).waitFor();
    await look("1-first-page");

    await choose(page, "nchf-convergedcharging");
    const create = await open(page, "create_charging_data");
    await look("2-create");
    const created = await execute(create);
    await look("3-created");
    assert.equal(created.status, "201", created.text);
    assert.match(created.text, /location: http:\/\/\S+\/nchf-convergedcharging\/v3\/chargingdata\/[a-z0-9-]+/i);
    assert.match(created.text, /"resultCode": "SUCCESS"/);
    console.log("create_charging_data with the example body: 201 and a Location");

    await choose(page, "admin");
    await page.getByRole("heading", { name: "nchf operator's API" }).waitFor();
    await look("4-admin");
    const account = await execute(await open(page, "get_account"));
    await look("5-account");
    assert.equal(account.status, "200", account.text);
    assert.match(account.text, /"id": "demo-0001"/);
    assert.match(account.text, /"reserved": "\d+\.\d{6}"/);
    console.log("get_account with the example parameters: 200 and its balances");

    assert.deepEqual(faults, [], "the page has errors, or wants something from elsewhere");
} finally {
    await browser.close();
}

// Chooses one of the documents at the top of the page.
async function choose(page, name) {
    await page.locator("#select").selectOption({ label: name });
}

// Unfolds an operation.
async function open(page, operation) {
    const block = page.locator(`.opblock[id$="-${operation}"]`);
    await block.locator(".opblock-summary-control").click();
    return block;
}

// Sends what the page proposes.
async function execute(block) {
    await block.getByRole("button", { name: "Execute" }).click();
    const answer = block.locator(".live-responses-table .response");
    await answer.waitFor();
    return { status: (await answer.locator(".response-col_status").innerText()).trim().slice(0, 3), text: await answer.innerText() };
}

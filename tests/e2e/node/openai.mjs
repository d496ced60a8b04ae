// node openai.mjs BASE_URL BODY: the models, a completion whole and streamed, and a refusal, as OpenAI's client sees them.
import OpenAI from "openai";

const [baseURL, body] = process.argv.slice(2);
const request = JSON.parse(body);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const whole = await client.completions.create(request);

const chunks = [];
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.completions.create({ ...request, ...options })) chunks.push(chunk);

const refusals = [];
for (const wrong of [{ model: "none" }, { n: 99 }])
	await client.completions
		.create({ ...request, ...wrong })
		.catch((error) =>
			refusals.push([
				error instanceof OpenAI.APIError,
				error.constructor.name,
				error.status,
				error.code,
				error.param,
			]),
		);

console.log(JSON.stringify({ models, whole, chunks, refusals }));

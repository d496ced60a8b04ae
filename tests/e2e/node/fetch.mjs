// node fetch.mjs URL BODY: the events of a stream, as JSON.
import { byFetch } from "./streams.mjs";

console.log(JSON.stringify(await byFetch(process.argv[2], JSON.parse(process.argv[3]))));

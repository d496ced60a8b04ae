// node eventsource.mjs URL: the events of a stream, as JSON.
import { EventSource } from "eventsource";
import { bySource } from "./streams.mjs";

console.log(JSON.stringify(await bySource(EventSource, process.argv[2])));

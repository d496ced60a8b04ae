"""The source of the WebAssembly that writes texts in a browser, and what builds it."""

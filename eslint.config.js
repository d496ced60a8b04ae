import js from "@eslint/js";
import globals from "globals";

export default [
	js.configs.recommended,
	{
		files: ["static/**/*.js"],
		languageOptions: { globals: globals.browser },
		rules: { "no-unused-vars": ["error", { ignoreRestSiblings: true }] },
	},
	{ files: ["tests/e2e/node/*.mjs"], languageOptions: { globals: globals.node } },
];

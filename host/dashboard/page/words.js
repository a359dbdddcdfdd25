// Numbers and times as an operator reads them. Whatever is missing is a dash.

const NONE = "–";

export const number = (value, digits) => (value === null || value === undefined ? NONE : value.toFixed(digits));
export const count = (value) => (value === null || value === undefined ? NONE : value.toLocaleString("en"));
export const share = (value) => (value === null || value === undefined ? NONE : `${(100 * value).toFixed(1)} %`);
export const score = (value) => number(value, 2);
export const time = (text) => new Date(text).toLocaleTimeString("en-GB");
export const clock = (text) => new Date(text).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
export const day = (text) => new Date(text).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
export const moment = (text) => `${day(text)} ${time(text)}`;

import { empty } from "./dom.js";

export async function playView() {
  return { element: empty("Not yet."), title: "Play" };
}

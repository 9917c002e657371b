// What the theme lacks for keyboards and screen readers: a name of the search's dialog, and wide tables that can be scrolled.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
addEventListener("load", () => {
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap")) wide.tabIndex = 0;
});

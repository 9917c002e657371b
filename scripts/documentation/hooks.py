"""What MkDocs is told beyond mkdocs.yml: pages made from the code, and files that lie outside of docs/."""

import logging
import os
from collections.abc import Iterator

import command_help
import python_reference
import repository_links
import settings_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# What commands log while their help is printed is no warning about the documentation.
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def _pages() -> Iterator[tuple[str, str]]:
    """Yield path and Markdown of every page that is made from the code."""
    yield "reference/commands.md", command_help.page()
    for name, text in settings_reference.pages():
        yield f"reference/{name}.md", text
    for name, text in python_reference.pages():
        yield f"reference/python/{name}.md", text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and what pages link to outside of docs/."""
    for path, text in _pages():
        files.append(File.generated(config, path, content=text))
    root = os.path.dirname(config.config_file_path)
    for path in repository_links.linked_outside(root):
        place = repository_links.place_in_site(path)
        files.append(File.generated(config, place, abs_src_path=os.path.join(root, path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the site has what the repository has."""
    return repository_links.rewrite(markdown, page.file.src_uri, os.path.dirname(config.config_file_path))

defmodule Mlx.LinksTest do
  @moduledoc """
  Links between the documents lead somewhere, and so do the names of modules and functions.
  """

  use ExUnit.Case, async: true

  @documents Enum.flat_map(
               ~w(*.md bench/*.md data/*.md guides/**/*.md livebooks/*.livemd),
               &Path.wildcard/1
             )

  @sources Path.wildcard("lib/**/*.ex")

  for path <- @documents do
    @external_resource path

    test "the links of #{path}" do
      assert wrong(unquote(path)) == []
    end

    test "the names in #{path}" do
      assert unknown(unquote(path)) == []
    end
  end

  test "the links of the documentation of modules" do
    pages = for extra <- Mlx.MixProject.project()[:docs][:extras], do: page(extra)

    for path <- @sources,
        [page, _anchor] <- links(path, ~r/\]\(([\w-]+)\.html(#[\w-]+)?\)/),
        page not in pages,
        do: flunk("#{path} links to #{page}.html, of which there is no source")
  end

  test "a link that leads nowhere is found" do
    assert missing("guides/serving.md", "nothing.md") == "nothing.md"
    assert missing("guides/serving.md", "../README.md#nothing") == "../README.md#nothing"
    refute missing("guides/serving.md", "../README.md#help")
    refute known?("Mlx.Stream.nothing/1")
    refute known?("Mlx.Nothing")
    assert known?("Mlx.Stream.new/0")
  end

  ## Links

  defp wrong(path) do
    for [link] <- links(path, ~r/\]\(([^)\s]+)\)/),
        not (link =~ ~r/^(https?|mailto):/),
        missing = missing(path, link),
        do: missing
  end

  defp links(path, pattern) do
    text = Regex.replace(~r/^```.*?^```$/ms, File.read!(path), "")
    for groups <- Regex.scan(pattern, text, capture: :all_but_first), do: pad(groups)
  end

  defp pad([page]), do: [page]
  defp pad([page, anchor]), do: [page, anchor]

  defp missing(path, link) do
    {target, anchor} =
      case String.split(link, "#") do
        [target] -> {target, nil}
        [target, anchor] -> {target, anchor}
      end

    file = if target == "", do: path, else: Path.join(Path.dirname(path), target)
    if not (File.exists?(file) and (anchor == nil or anchor in anchors(file))), do: link
  end

  defp anchors(file) do
    for [title] <- Regex.scan(~r/^#+ (.+)$/m, File.read!(file), capture: :all_but_first) do
      title |> String.downcase() |> String.replace(~r/[^\w\s-]/u, "") |> String.replace(" ", "-")
    end
  end

  defp page({path, opts}), do: opts[:filename] || page(to_string(path))
  defp page(path), do: path |> Path.basename() |> Path.rootname() |> String.downcase()

  ## Names

  defp unknown(path) do
    for [name] <- links(path, ~r/`(Mlx[\w.]*[\w?!](?:\/\d+)?)`/), not known?(name), do: name
  end

  defp known?(name) do
    case Regex.run(~r/^(.+)\.([a-z_]\w*[?!]?)\/(\d+)$/, name, capture: :all_but_first) do
      [module, function, arity] ->
        module = Module.concat([module])

        Code.ensure_loaded?(module) and
          function_exported?(module, String.to_atom(function), String.to_integer(arity))

      nil ->
        Code.ensure_loaded?(Module.concat([name])) or task?(name)
    end
  end

  # Modules of the tests, and types, have names that the library lacks.
  defp task?(name), do: name =~ ~r/^Mlx\.(\w+Case|GradientCases|Oracle|MixProject)/
end

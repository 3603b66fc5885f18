defmodule Mlx.GuidesTest do
  @moduledoc """
  The examples of the guides.
  """

  use ExUnit.Case, async: true

  @guides Path.wildcard("guides/*.md")

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # Guides whose blocks are one program, from the first to the last, and the package that some need.
  @programs [
    {"guides/bumblebee.md", :bumblebee},
    {"guides/compiling.md", nil},
    {"guides/fine_tuning.md", :axon},
    {"guides/language_models.md", nil},
    {"guides/serving.md", nil}
  ]

  for {guide, package} <- @programs do
    if package, do: @tag(package)
    @tag :capture_log
    test "#{guide} runs" do
      Mlx.Livebook.run(unquote(guide))
    end
  end

  for guide <- @guides do
    @external_resource guide
    if File.read!(guide) =~ "iex>", do: doctest_file(guide)

    test "#{guide} is in the documentation" do
      assert unquote(guide) in Mlx.MixProject.project()[:docs][:extras]
    end
  end

  test "README.md says what each example prints" do
    readme = File.read!("README.md")
    examples = for path <- Path.wildcard("examples/*.exs"), run?(path), do: path
    assert length(examples) >= 5
    for path <- examples, do: assert(readme =~ ~r/`[^`]*mix run #{path}[^`]*`[^`]+```\n/, path)
  end

  # Others are parts of examples.
  defp run?(path), do: File.read!(path) =~ "mix run #{path}"

  # A sentence that ends with the name of a file, and a block after it.
  @quoted ~r/ In\s`([\w\/.]+)`:\n\n```\w+\n(.*?)^```$/ms

  test "what guides/contributing.md shows of the sources is there" do
    quotes = Regex.scan(@quoted, File.read!("guides/contributing.md"), capture: :all_but_first)
    assert length(quotes) >= 3

    for [path, code] <- quotes,
        do: assert(File.read!(path) =~ code, "#{path} is without\n#{code}")
  end
end

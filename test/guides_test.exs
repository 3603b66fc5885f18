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

  # Guides whose blocks are one program, from the first to the last.
  @programs ~w(guides/compiling.md guides/language_models.md guides/serving.md)

  for guide <- @programs do
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

  # A sentence that ends with the name of a file, and a block after it.
  @quoted ~r/ In\s`([\w\/.]+)`:\n\n```\w+\n(.*?)^```$/ms

  test "what guides/contributing.md shows of the sources is there" do
    quotes = Regex.scan(@quoted, File.read!("guides/contributing.md"), capture: :all_but_first)
    assert length(quotes) >= 3

    for [path, code] <- quotes,
        do: assert(File.read!(path) =~ code, "#{path} is without\n#{code}")
  end
end

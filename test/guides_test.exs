defmodule Mlx.GuidesTest do
  @moduledoc """
  The examples of the guides.
  """

  use ExUnit.Case, async: true

  @guides Path.wildcard("guides/*.md")

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  # Guides whose blocks are one program, from the first to the last.
  @programs ~w(guides/serving.md guides/language_models.md)

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
end

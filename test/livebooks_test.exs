defmodule Mlx.LivebooksTest do
  use ExUnit.Case, async: true

  alias Mlx.Livebook

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  for path <- Path.wildcard("livebooks/*.livemd") do
    @external_resource path
    @tag timeout: 300_000
    test "#{path} runs" do
      Livebook.run(unquote(path))
    end

    test "#{path} installs Mlx first, and is in the documentation" do
      assert [_, first] = Regex.run(~r/```elixir\n(.*?)```/s, File.read!(unquote(path)))
      assert [{:mlx, path: root} | _] = installed(first, Path.expand(unquote(path)))
      assert root == File.cwd!()
      assert unquote(path) in Mlx.MixProject.project()[:docs][:extras]
    end
  end

  # What a cell in a file asks of `Mix.install/2`.
  defp installed(cell, file) do
    {{:., _, [{:__aliases__, _, [:Mix]}, :install]}, _, [deps | _]} = Code.string_to_quoted!(cell)
    {deps, _} = Code.eval_quoted(deps, [], file: file)
    deps
  end

  @text """
  # A notebook

  ```elixir
  Mix.install([{:mlx, "~> 0.1"}])
  ```

  ```elixir
  import Bitwise
  x = 5
  ```

  <!-- livebook:{"force_markdown":true} -->

  ```elixir
  raise "only shown"
  ```

  ```sh
  exit 1
  ```

  ```elixir
  band(x, 4)
  #=> 4
  ```
  """

  describe "the cells of a notebook" do
    test "are run in order, but for those that install or only show" do
      assert [%{line: 8, expected: nil}, %{line: 23, expected: "4"}] = Livebook.cells(@text)
      assert Livebook.run(@text, "text") == :ok
    end

    test "fail if they give something else or raise" do
      wrong = String.replace(@text, "#=> 4", "#=> 5")

      assert_raise ExUnit.AssertionError, ~r/text:23 gives 4/, fn ->
        Livebook.run(wrong, "text")
      end

      raises = String.replace(@text, "x = 5", "raise \"no\"")
      assert_raise RuntimeError, "no", fn -> Livebook.run(raises, "text") end
      assert_raise ExUnit.AssertionError, ~r/no code/, fn -> Livebook.run("# A text", "text") end
    end
  end
end

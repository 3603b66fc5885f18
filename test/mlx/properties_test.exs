for family <- Mlx.Properties.families() do
  defmodule Module.concat(Mlx.PropertiesTest, family |> Module.split() |> List.last()) do
    use ExUnit.Case, async: true
    use ExUnitProperties
    import Mlx.Oracle
    alias Mlx.Properties

    for name <- Properties.names(family) do
      property "#{inspect(name)}" do
        cases = Properties.generator(unquote(family), unquote(name))

        check all {fun, args, options} <- cases,
                  initial_seed: Properties.seed(),
                  max_runs: Properties.runs() do
          assert_same(fun, args, options)
          note(unquote(name), fun, args)
        end

        assert Process.get(:ran), "none of the examples runs #{unquote(inspect(name))}"
      end
    end

    # Nx may have no work for the backend in some examples.
    defp note(name, fun, args) do
      Process.get(:ran) || Process.put(:ran, is_binary(name) or name in operations(fun, args))
    end
  end
end

defmodule Mlx.PropertiesTest do
  use ExUnit.Case, async: true

  test "every operation and every block has a property" do
    names = Enum.flat_map(Mlx.Properties.families(), &Mlx.Properties.names/1)
    assert (Mlx.Lowering.ops() ++ Mlx.Oracle.blocks()) -- names == []
    assert names == Enum.uniq(names)
  end
end

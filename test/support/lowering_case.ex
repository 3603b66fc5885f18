defmodule Mlx.LoweringCase do
  @moduledoc """
  Cases for the operations of one family, each run with `Mlx.Oracle`.

  A module that uses this gets one more test: that no operation of its family lacks
  a case.
  """

  use ExUnit.CaseTemplate

  using opts do
    quote do
      import Mlx.LoweringCase, only: [check: 3, check: 4]
      import Mlx.Oracle
      import Mlx.Samples

      Module.register_attribute(__MODULE__, :checked, accumulate: true)
      @family unquote(opts[:family])
      @before_compile Mlx.LoweringCase
    end
  end

  @doc """
  A test that the function of `Nx` of that name runs the operation of that name, and
  gives the same with both backends. The options are those of `Mlx.Oracle.assert_same/3`.
  """
  defmacro check(operation, description, args, opts \\ []) do
    quote bind_quoted: [operation: operation, description: description, args: args, opts: opts] do
      @checked operation

      test "#{operation} #{description}" do
        args = unquote(Macro.escape(args))
        fun = Function.capture(Nx, unquote(operation), length(args))
        assert unquote(operation) in operations(fun, args)
        assert_same(fun, args, unquote(opts))
      end
    end
  end

  defmacro __before_compile__(_env) do
    quote do
      test "every operation of the family has a case" do
        assert Enum.sort(@family.ops()) == @checked |> Enum.uniq() |> Enum.sort()
      end
    end
  end
end
